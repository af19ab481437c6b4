//! The gate: all that strangers reach. One thread takes their connections, reads each request in full, and only then lets
//! it go on to tiny_http; it sends the answer back and closes the connection.
//!
//! tiny_http 0.12 is not made to face strangers: it has a thread for each connection, no timeouts, and no limit for the
//! length of a header; it aborts the process for a length that can't be allocated, and for a connection reset before it
//! is accepted; its accept loop ends at the first error. Behind the gate it sees whole, well-formed requests of bounded
//! size, a fixed number at a time, and never learns that there is a network.
//!
//! `incoming` and `head` read a request, `answer` an answer, `places` says who is given up when places run out, and `line`
//! whose turn it is: these are pure. `clients` are the connections from outside, `slots` those to tiny_http (`slot` is
//! one, `reserve` has those that are not used yet), and `serve` moves requests and answers between them.

pub mod answer;
#[cfg(feature = "programs")]
mod clients;
pub mod head;
pub mod incoming;
#[cfg(feature = "programs")]
mod limits;
#[cfg(feature = "programs")]
mod line;
#[cfg(feature = "programs")]
mod places;
#[cfg(feature = "programs")]
mod reserve;
#[cfg(feature = "programs")]
mod serve;
#[cfg(feature = "programs")]
mod slot;
#[cfg(feature = "programs")]
mod slots;

#[cfg(feature = "programs")]
pub(crate) use self::head::{CLIENT, Refusal};
#[cfg(feature = "programs")]
pub(crate) use self::limits::Limits;
#[cfg(feature = "programs")]
pub use self::reserve::Reserve;
#[cfg(feature = "programs")]
pub(crate) use self::serve::run;
