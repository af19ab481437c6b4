//! What web child and mover say to each other. The input is taken for a stream, and for the body of one message: a fuzzer
//! hardly ever gets the length in front of it right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posttls::web::protocol::{Answer, MAX_ANSWER, MAX_QUESTION, Numbered, Question, receive, send};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    stream(input);
    let length = u32::try_from(input.len()).expect("a short input");
    let frame = [&length.to_be_bytes(), input].concat();
    stream(&frame);
    if let Ok(Some(question)) = receive::<Numbered<Question>>(&frame[..], MAX_QUESTION) {
        repeated(&question, input, MAX_QUESTION);
    }
    if let Ok(Some(answer)) = receive::<Numbered<Answer>>(&frame[..], MAX_ANSWER) {
        repeated(&answer, input, MAX_ANSWER);
    }
    // One octet less than it has is one too many.
    if let Some(less) = input.len().checked_sub(1) {
        assert!(receive::<Value>(&frame[..], less).is_err());
        assert!(
            receive::<Value>(&frame[..4 + less], MAX_QUESTION).is_err(),
            "a cut message is understood"
        );
    }
});

/// Message by message, as both sides read; no more is taken than was announced.
fn stream(octets: &[u8]) {
    let mut rest = octets;
    while let Ok(Some(_)) = receive::<Numbered<Question>>(&mut rest, MAX_QUESTION) {}
    let mut rest = octets;
    loop {
        let before = rest;
        let result = receive::<Value>(&mut rest, MAX_QUESTION);
        let Some((length, body)) = before.split_first_chunk() else {
            break;
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_QUESTION {
            assert!(
                result.is_err() && rest == body,
                "read beyond a length that is refused"
            );
        }
        if !matches!(result, Ok(Some(_))) {
            break;
        }
        assert_eq!(rest, &body[length..]);
    }
}

/// What was understood can be said, and is then understood to mean the same.
fn repeated<T: serde::Serialize + serde::de::DeserializeOwned>(
    message: &T,
    input: &[u8],
    max: usize,
) {
    let mut said = Vec::new();
    if let Err(error) = send(&mut said, message, max) {
        // Escapes may make a text longer than it came.
        return assert!(input.len() > max / 7, "{error}");
    }
    let heard: T = receive(&said[..], max)
        .expect("our own message")
        .expect("a whole one");
    let mut again = Vec::new();
    send(&mut again, &heard, max).expect("as long as before");
    assert_eq!(said, again);
}
