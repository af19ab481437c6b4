//! The queue file reader against real Postfix: what it finds in files that Postfix wrote is what postcat(1) shows.
//!
//! Needs root, as Postfix does. Each test starts a Postfix of its own and stops it, whatever happens.

mod milter;
mod postfix;

use std::fs;
use std::io::Cursor;

use posttls::case::Failure;
use posttls::notice::classify_deferral;
use posttls::postfix::{QueueFile, QueueFileError, RecipientState, deferrals, mark_done};

use postfix::Postfix;

const CONTENT: &[u8] = b"Subject: test\r\nFrom: ann@sender.test\r\n\r\nbody\r\n";

/// One envelope record as postcat shows it: offset, name, value.
type Shown = (u64, String, Vec<u8>);

fn shown(postcat: &[u8]) -> Vec<Shown> {
    let lines = postcat.split(|b| *b == b'\n');
    lines
        .filter_map(|line| {
            let line = line.trim_ascii_start();
            let blank = line.iter().position(|b| *b == b' ')?;
            let offset = std::str::from_utf8(&line[..blank]).ok()?.parse().ok()?;
            let rest = &line[blank + 1..];
            let colon = rest.windows(2).position(|pair| pair == b": ")?;
            let name = String::from_utf8_lossy(&rest[..colon]).into_owned();
            Some((offset, name, rest[colon + 2..].to_vec()))
        })
        .collect()
}

fn values<'a>(shown: &'a [Shown], name: &str) -> Vec<&'a [u8]> {
    shown
        .iter()
        .filter(|(_, n, _)| n == name)
        .map(|(_, _, value)| value.as_slice())
        .collect()
}

/// Compares record for record, and gives the file for further questions.
fn agrees(postfix: &Postfix, file: &std::path::Path) -> QueueFile {
    let shown = shown(&postfix.postcat(file));
    let found = QueueFile::read(fs::File::open(file).unwrap()).unwrap();
    let expected: Vec<(u64, RecipientState, &[u8])> = shown
        .iter()
        .filter_map(|(offset, name, value)| {
            let state = match name.as_str() {
                "recipient" => RecipientState::Pending,
                "done_recipient" => RecipientState::Done,
                "canceled_recipient" => RecipientState::Cancelled,
                _ => return None,
            };
            Some((*offset, state, value.as_slice()))
        })
        .collect();
    let recipients: Vec<_> = found
        .recipients
        .iter()
        .map(|r| (r.offset, r.state, r.bytes.as_slice()))
        .collect();
    assert_eq!(recipients, expected);
    assert!(!recipients.is_empty());
    let originals: Vec<_> = found
        .recipients
        .iter()
        .filter_map(|r| r.original.as_deref())
        .collect();
    assert_eq!(originals, values(&shown, "original_recipient"));
    assert_eq!(values(&shown, "sender"), [found.sender.as_slice()]);
    let mut attributes: Vec<Vec<u8>> = Vec::new();
    for (name, value) in &found.attributes {
        attributes.push([name.as_bytes(), b"=", value].concat());
    }
    // postcat shows creation time as a date, and not under its name.
    attributes.retain(|a| !a.starts_with(b"create_time="));
    let per_recipient =
        |a: &&[u8]| a.starts_with(b"dsn_orig_rcpt=") || a.starts_with(b"notify_flags=");
    let expected = values(&shown, "named_attribute");
    let (of_recipients, of_message): (Vec<_>, Vec<_>) =
        expected.into_iter().partition(per_recipient);
    assert_eq!(attributes, of_message);
    let dsn = |r: &posttls::postfix::Recipient| {
        let original = r
            .dsn_original
            .iter()
            .map(|v| [b"dsn_orig_rcpt=", v.as_slice()].concat());
        let notify = r
            .notify
            .iter()
            .map(|bits| format!("notify_flags={bits}").into_bytes());
        notify.chain(original).collect::<Vec<_>>()
    };
    let found_dsn: Vec<_> = found.recipients.iter().flat_map(dsn).collect();
    assert_eq!(found_dsn, of_recipients);
    let size = values(&shown, "message_size");
    let declared: Vec<u64> = String::from_utf8_lossy(size[0])
        .split_ascii_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let size = found.size;
    assert_eq!(
        declared[..5],
        [
            size.data_size,
            size.data_offset,
            size.recipients,
            size.flags,
            size.content_length
        ]
    );
    found
}

fn envelopes(settings: &str) {
    let postfix = Postfix::start(settings);
    let many: Vec<String> = (0..400).map(|n| format!("<r{n}@defer.test>")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let dsn = [
        "<a@defer.test> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@else.test",
        "<fine@ok.test> NOTIFY=SUCCESS",
        r#"<"b \"c"@defer.test> NOTIFY=FAILURE,DELAY"#,
        "<list@alias.test>",
    ];
    let ids = [
        postfix.send("<ann@sender.test>", &["<a@defer.test>"], CONTENT),
        postfix.send("<>", &["<a@defer.test>", "<b@defer.test>"], CONTENT),
        postfix.send("<ann@sender.test> RET=HDRS ENVID=QQ+2B1 BODY=8BITMIME", &dsn, CONTENT),
        postfix.send("<jürgen@sender.test> SMTPUTF8", &["<täst@defer.test>", "<x@ok.test>"], CONTENT),
        postfix.send("<ann@sender.test>", &many, &[CONTENT, &[b'x'; 900]].concat()),
        postfix.sendmail(
            "sendmail@sender.test",
            b"To: a@defer.test, \"x y\"@defer.test\nCc: fine@ok.test\nBcc: hidden@defer.test\n\nbody\n",
        ),
    ];
    let mut files = Vec::new();
    for id in &ids {
        let path = postfix.deferred(id);
        let file = agrees(&postfix, &path);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let age = i64::try_from(now.as_secs()).unwrap() - file.arrival.0;
        assert!((0..120).contains(&age), "{age} seconds old");
        for deferral in deferrals(&postfix.defer_log(id)) {
            let same = file
                .recipients
                .iter()
                .find(|r| Some(r.offset) == deferral.offset);
            assert_eq!(
                same.and_then(|r| r.address.as_ref()),
                Some(&deferral.recipient)
            );
            assert_eq!(classify_deferral(&deferral), Failure::NotOffered);
        }
        assert_eq!(
            deferrals(&postfix.defer_log(id)).count(),
            file.pending().count()
        );
        files.push((path, file));
    }
    assert!(files[1].1.sender.is_empty());
    assert_eq!(
        files[2]
            .1
            .recipients
            .iter()
            .filter(|r| r.state == RecipientState::Done)
            .count(),
        2
    );
    assert_eq!(files[2].1.attribute("envelope_id"), Some(&b"QQ+1"[..]));
    assert_eq!(files[4].1.recipients.len(), 400);

    // One recipient is marked; Postfix's own tools see it so.
    let (path, before) = &files[5];
    let offset = before.pending().next().unwrap().offset;
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    assert_eq!(mark_done(&file, &[offset]).unwrap(), 1);
    assert_eq!(
        agrees(&postfix, path).pending().count(),
        before.pending().count() - 1
    );
}

#[test]
fn envelopes_are_read_as_postcat_shows_them() {
    envelopes("enable_long_queue_ids = no");
}

#[test]
fn long_queue_ids_and_hashed_queues_change_nothing() {
    envelopes(
        "enable_long_queue_ids = yes\nhash_queue_names = deferred, defer\nhash_queue_depth = 2",
    );
}

#[test]
fn what_milters_changed_is_followed() {
    let port = milter::start();
    let postfix = Postfix::start(&format!(
        "smtpd_milters = inet:127.0.0.1:{port}\nnon_smtpd_milters = $smtpd_milters"
    ));
    let recipients = ["<a@defer.test>", "<removed@defer.test>", "<fine@ok.test>"];
    let ids = [
        postfix.send("<ann@sender.test>", &recipients, CONTENT),
        postfix.sendmail(
            "sendmail@sender.test",
            b"To: a@defer.test, removed@defer.test\n\nbody\n",
        ),
    ];
    for id in &ids {
        let path = postfix.deferred(id);
        let file = agrees(&postfix, &path);
        assert_eq!(file.sender, b"changed@sender.test");
        let added = file
            .pending()
            .filter(|r| r.bytes.starts_with(b"added"))
            .count();
        assert_eq!(added, 29);
        let removed = file
            .recipients
            .iter()
            .find(|r| r.bytes == b"removed@defer.test");
        assert_eq!(removed.map(|r| r.state), Some(RecipientState::Cancelled));
        damaged(&fs::read(&path).unwrap());
    }
}

/// No damage makes the reader panic or run on, and none hides that a recipient is missing.
fn damaged(whole: &[u8]) {
    let read = |bytes: &[u8]| QueueFile::read(Cursor::new(bytes));
    let good = read(whole).unwrap();
    for length in 0..whole.len() {
        if let Ok(cut) = read(&whole[..length]) {
            assert_eq!(cut, good);
        }
    }
    for at in 0..whole.len() {
        for change in [0x00, 0x01, 0x20, 0x80, 0xff] {
            let mut bytes = whole.to_vec();
            bytes[at] ^= change;
            match read(&bytes) {
                Ok(file) => assert_eq!(file.recipients.len(), good.recipients.len(), "octet {at}"),
                Err(QueueFileError::Record(error)) => assert!(!error.to_string().is_empty()),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}
