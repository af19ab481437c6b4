//! What the ear reads: socketmap questions of smtp(8), and the kernel's table of locks. The input is taken for either.
#![no_main]
#![allow(dead_code, missing_docs)]

use libfuzzer_sys::fuzz_target;
// What `crate::` means in the included files.
use posttls::{case, text};

// The ear itself is one of the programs, which are not built here.
#[path = "../../../src/ear/dialogue.rs"]
mod dialogue;
#[path = "../../../src/standing/locks.rs"]
mod locks;
#[path = "../../../src/ear/socketmap.rs"]
mod socketmap;

fuzz_target!(|input: &[u8]| {
    let whole = questions(std::iter::once(input));
    assert_eq!(
        whole,
        questions(input.chunks(1)),
        "how a question is cut decides"
    );
    assert_eq!(whole, questions(input.chunks(7)));
    let mut dialogue = dialogue::Dialogue::default();
    for question in whole.iter().filter_map(|one| dialogue::Question::read(one)) {
        if let Some(heard) = dialogue.hear(&[3, 5], question) {
            assert!(
                !heard.reply.chars().any(char::is_control),
                "{:?}",
                heard.reply
            );
        }
    }
    let table = String::from_utf8_lossy(input);
    let _ = locks::shared_locks(&table, 17574);
});

fn questions<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut queries = socketmap::Queries::default();
    let mut found = Vec::new();
    for piece in pieces {
        queries.add(piece);
        while let Ok(Some(question)) = queries.take() {
            found.push(question);
        }
    }
    found
}
