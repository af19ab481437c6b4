//! Which message a process is delivering: Postfix's delivery agents keep a shared lock on the queue file, and the kernel
//! lists all locks for everybody (proc(5), /proc/locks), with process and inode number. The name of a copy in the may
//! instance ends in its inode number.

/// The table is given out in pieces of some sixty locks, and what is taken or released between two of them shifts the
/// rest: a lock that stays may be passed over, or listed twice. So often the table is read before a process has none.
const LOOKS: usize = 5;

/// Is the table there? Not where most of /proc is hidden (systemd's `ProcSubset=pid`). It is never empty: Postfix's master
/// alone has a lock.
pub fn are_seen() -> bool {
    std::fs::read("/proc/locks").is_ok_and(|table| !table.is_empty())
}

/// The inode numbers of the files on which the process with this ID keeps a shared flock(2), in ascending order. Empty
/// when that can't be told.
pub fn messages_of(process: i32) -> Vec<u64> {
    let look = || std::fs::read_to_string("/proc/locks").unwrap_or_default();
    (0..LOOKS)
        .map(|_| shared_locks(&look(), process))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// The numbers as one text, for `posttls check`.
pub fn listed(inodes: &[u64]) -> String {
    let words: Vec<String> = inodes.iter().map(u64::to_string).collect();
    words.join(" ")
}

/// The same, from the text of the table.
pub fn shared_locks(table: &str, process: i32) -> Vec<u64> {
    let mut inodes: Vec<u64> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let kind = [words.next()?, words.next()?, words.next()?];
            let owner: i32 = words.next()?.parse().ok()?;
            let file = words.next()?;
            (kind == ["FLOCK", "ADVISORY", "READ"] && owner == process)
                .then(|| file.rsplit(':').next()?.parse().ok())?
        })
        .collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}

#[cfg(test)]
mod tests {
    use super::shared_locks;

    const TABLE: &str = "1: FLOCK  ADVISORY  READ 17574 fe:00:10101954 0 EOF\n\
        2: FLOCK  ADVISORY  WRITE 17574 fe:00:11 0 EOF\n\
        2: -> FLOCK  ADVISORY  READ 17574 fe:00:12 0 EOF\n\
        3: POSIX  ADVISORY  READ 17574 fe:00:13 0 EOF\n\
        4: FLOCK  ADVISORY  READ 175 fe:00:14 0 EOF\n\
        5: FLOCK  ADVISORY  READ 17574 fe:00:10101954 0 EOF\n\
        5: FLOCK  ADVISORY  READ 17574\n\nnonsense\n";

    #[test]
    fn a_process_has_the_message_that_it_keeps_a_shared_lock_on() {
        assert_eq!(shared_locks(TABLE, 17574), [10_101_954]);
        assert_eq!(shared_locks(TABLE, 175), [14]);
        assert_eq!(shared_locks(TABLE, 5), [0u64; 0]);
    }
}
