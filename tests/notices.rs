//! The corpus of named notices: what is understood of each, with LF and with CRLF. Those whose names begin with
//! `made-` were changed by hand; all others are as Postfix 3.7.11 gave them to pipe(8).

use std::fmt::Write;
use std::fs;
use std::path::Path;

use posttls::notice::{Delivery, check, parse};
use posttls::postfix::QueueId;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/notices");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "eml"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect()
}

fn with_crlf(raw: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = raw.split(|b| *b == b'\n').collect();
    lines.join(&b"\r\n"[..])
}

/// From the `Message-Id` that cleanup adds: `<DATE.QUEUE-ID@HOST>`, or `<QUEUE-ID@HOST>` when the ID is a long one.
fn queue_id(raw: &[u8]) -> QueueId {
    let text = String::from_utf8_lossy(raw);
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("Message-Id: <"));
    let id = id
        .and_then(|id| id.split('@').next())
        .and_then(|id| id.split('.').next_back());
    id.unwrap_or("NOQUEUEID").parse().unwrap()
}

fn verdict(name: &str, raw: &[u8]) -> String {
    let delivery = Delivery {
        client: if name == "forged-by-smtp" {
            "127.0.0.1"
        } else {
            ""
        },
        sender: "double-bounce@encrypt.posttls.test",
        queue_id: &queue_id(raw),
        double_bounce: "double-bounce",
    };
    let mut text = match check(raw, &delivery) {
        Ok(()) => "origin: Postfix\n".to_owned(),
        Err(error) => format!("origin: {error}\n"),
    };
    match parse(raw) {
        Ok(notice) => {
            for recipient in &notice.recipients {
                writeln!(text, "{}: {}", recipient.address, recipient.failure()).unwrap();
            }
            for skipped in &notice.skipped {
                writeln!(text, "skipped {:?}: {}", skipped.recipient, skipped.reason).unwrap();
            }
            writeln!(text, "{notice:#?}").unwrap();
        }
        Err(error) => writeln!(text, "no notice: {error}").unwrap(),
    }
    text
}

#[test]
fn every_notice_is_understood_as_recorded() {
    for (name, raw) in corpus() {
        let found = verdict(&name, &raw);
        assert_eq!(found, verdict(&name, &with_crlf(&raw)), "{name} with CRLF");
        insta::assert_snapshot!(name, found);
    }
}

#[test]
fn no_cut_and_no_changed_octet_panics() {
    for (_, raw) in corpus() {
        for at in (0..raw.len()).step_by(5) {
            let _ = parse(&raw[..at]);
            for octet in [0, b'\n', b';', 0xff] {
                let mut changed = raw.clone();
                changed[at] = octet;
                let _ = parse(&changed);
            }
        }
    }
}
