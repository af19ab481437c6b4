//! What strangers may use up: time, places and memory. All of it in one place, for tests have limits of their own.

use std::time::Duration;

/// What strangers may use up.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For the head of a request, from the moment it is connected.
    pub(crate) head_time: Duration,
    /// For a client that has just connected to send its request: no other connection takes its place before.
    pub(crate) fresh_time: Duration,
    /// For a form, from the end of its head on.
    pub(crate) body_time: Duration,
    /// For a complete request to have its turn, and for tiny_http to answer it then.
    pub(crate) work_time: Duration,
    /// Without any progress in sending an answer; four times as much for all of it.
    pub(crate) answer_time: Duration,
    /// For a client to close its end, once it has its answer.
    pub(crate) leave_time: Duration,
    /// Connections; fewer if there are not enough descriptors.
    pub(crate) connections: usize,
    /// Connections of one address whose request is not there in full. Trusted proxies have no such limit.
    pub(crate) unfinished_of_one: usize,
    /// Octets of requests and answers that are held.
    pub(crate) memory: usize,
    /// Requests under way.
    pub(crate) under_way: usize,
    /// Connections to tiny_http that can replace one that a fault has ended: the process can make no more.
    pub(crate) spare: usize,
    /// Requests of one client (one address, as a trusted proxy tells it) under way.
    pub(crate) under_way_of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_time: Duration::from_secs(10),
            fresh_time: Duration::from_millis(250),
            body_time: Duration::from_secs(20),
            work_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(30),
            leave_time: Duration::from_secs(2),
            connections: 3000,
            unfinished_of_one: 128,
            memory: 64 * 1024 * 1024,
            under_way: 32,
            spare: 96,
            under_way_of_one: 24,
        }
    }
}
