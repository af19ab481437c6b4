//! A milter that changes every message in all the ways that leave pointer records in a queue file (the Sendmail milter
//! protocol, version 6, as Postfix's MILTER_README describes it).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Add header, change body, add recipient, delete recipient, change header, change sender, with parameters.
const ACTIONS: u32 = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;

/// Starts it and gives its port. It ends with the test's process.
pub fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(mut stream: TcpStream) -> Option<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut packet).ok()?;
        match packet.first()? {
            b'O' => {
                let options = [6, ACTIONS, 0].map(u32::to_be_bytes).concat();
                reply(&mut stream, b'O', &options)?;
            }
            // Macros and abort have no answer.
            b'D' | b'A' => {}
            b'Q' => return None,
            b'E' => {
                reply(&mut stream, b'h', b"X-Added\0by the milter\0")?;
                reply(
                    &mut stream,
                    b'm',
                    b"\0\0\0\x01Subject\0a longer subject than it was before\0",
                )?;
                for number in 0..30 {
                    reply(
                        &mut stream,
                        b'+',
                        format!("<added{number}@defer.test>\0").as_bytes(),
                    )?;
                }
                reply(&mut stream, b'-', b"<removed@defer.test>\0")?;
                reply(&mut stream, b'-', b"<added7@defer.test>\0")?;
                reply(&mut stream, b'e', b"<changed@sender.test>\0")?;
                reply(&mut stream, b'b', "another body\r\n".repeat(200).as_bytes())?;
                reply(&mut stream, b'c', b"")?;
            }
            _ => reply(&mut stream, b'c', b"")?,
        }
    }
}

fn reply(stream: &mut TcpStream, command: u8, data: &[u8]) -> Option<()> {
    let length = u32::try_from(data.len() + 1).ok()?;
    let packet = [&length.to_be_bytes()[..], &[command], data].concat();
    stream.write_all(&packet).ok()
}
