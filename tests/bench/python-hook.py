#!/usr/bin/env python3
"""The hook as one would write it on a Friday afternoon: parse the notice, note it in SQLite, write to the sender."""
import email
import smtplib
import sqlite3
import sys

database, port = sys.argv[1], int(sys.argv[2])
notice = email.message_from_binary_file(sys.stdin.buffer)
status = next(part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
message, *recipients = status.get_payload()
queue_id = message["X-Postfix-Queue-ID"]
sender = message["X-Postfix-Sender"].split(";", 1)[1].strip()
waiting = [one["Final-Recipient"].split(";", 1)[1].strip() for one in recipients]
connection = sqlite3.connect(database, timeout=60)
with connection:
    connection.execute("CREATE TABLE IF NOT EXISTS cases (queue_id, sender, recipients)")
    connection.execute("INSERT INTO cases VALUES (?, ?, ?)", (queue_id, sender, " ".join(waiting)))
text = f"From: posttls@sender.test\r\nTo: {sender}\r\nSubject: Not sent yet\r\n\r\n{waiting}: /c/{queue_id}\r\n"
with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as session:
    session.sendmail("", [sender], text)
