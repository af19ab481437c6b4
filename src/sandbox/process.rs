//! Running programs: Postfix's tools, its instances, and `posttls-httpd`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::SandboxError;
use super::error::AtPath;

/// Runs a command and returns what it printed, stdout and stderr together, if it exits with 0.
pub(super) fn run(command: &mut Command) -> Result<String, SandboxError> {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(text_of(&output)),
        Ok(output) => Err(SandboxError::Command {
            command: line,
            status: output.status.to_string(),
            output: text_of(&output),
        }),
        Err(error) => Err(SandboxError::Command {
            command: line,
            status: error.to_string(),
            output: String::new(),
        }),
    }
}

/// What the host's Postfix wants in `compatibility_level` to keep quiet about it: its own version, and a number before
/// 3.6.
///
/// # Errors
/// When `postconf` can't be asked.
pub fn compatibility_level() -> Result<String, SandboxError> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(level) = KNOWN.get() {
        return Ok(level.clone());
    }
    let version = run(Command::new("postconf").args(["-d", "-h", "mail_version"]))?;
    let level = level_of(version.trim());
    Ok(KNOWN.get_or_init(|| level).clone())
}

fn level_of(version: &str) -> String {
    let numbers = version.split(['.', '-']).map(str::parse::<u32>);
    match numbers.take(2).collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([major, minor]) if (*major, *minor) >= (3, 6) => format!("{major}.{minor}"),
        _ => "2".to_owned(),
    }
}

/// Runs a command that must succeed and print nothing, but for the files that Debian 13 copies for chrooted services.
pub(super) fn run_silently(command: &mut Command) -> Result<(), SandboxError> {
    let output = run(command)?;
    let copied = |line: &str| line.starts_with("updating /") && line.contains(" => ");
    if output.lines().all(|line| line.is_empty() || copied(line)) {
        return Ok(());
    }
    Err(SandboxError::NotSilent {
        command: format!("{command:?}"),
        output,
    })
}

fn text_of(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// A Postfix command for the instance configured in `config`.
pub(super) fn postfix_tool(tool: &str, config: &Path) -> Command {
    let mut command = Command::new(tool);
    command.arg("-c").arg(config).env_remove("MAIL_CONFIG");
    // Postfix's master leads a process group of its own, but the scripts before it should not get the terminal's Ctrl-C.
    command.process_group(0);
    command
}

/// How long a master may take to end, and how often it is looked at. (`postfix stop` looks once a second.)
const STOPS: Duration = Duration::from_secs(5);
const STOP_PAUSE: Duration = Duration::from_millis(10);

/// Stops the instance configured in `config`, gently, then firmly. Nothing happens when it is not running.
pub(super) fn stop_instance(config: &Path) -> Result<(), SandboxError> {
    let Some(lock) = lock_file(config) else {
        return Ok(());
    };
    let deadline = Instant::now() + STOPS;
    let Some(master) = master(&lock) else {
        return Ok(());
    };
    // Gone since is as good.
    let _ = kill_process(master, Signal::TERM);
    while Instant::now() < deadline {
        if self::master(&lock).is_none() {
            return Ok(());
        }
        std::thread::sleep(STOP_PAUSE);
    }
    run(postfix_tool("postfix", config).arg("abort")).map(drop)
}

/// What the master of an instance has locked as long as it lives, below the queue directory that its main.cf names.
fn lock_file(config: &Path) -> Option<PathBuf> {
    let main = fs::read_to_string(config.join("main.cf")).ok()?;
    let setting = main.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "queue_directory").then_some(value.trim())
    });
    Some(Path::new(setting?).join("pid/master.pid"))
}

/// The master that has locked `path`, if one has.
fn master(path: &Path) -> Option<Pid> {
    let file = fs::File::open(path).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Starts `posttls-httpd`, its output going to `dir/httpd.out`, and waits until `port` answers HTTP.
pub(super) fn start_httpd(
    dir: &Path,
    port: u16,
    env: &[(String, String)],
) -> Result<Child, SandboxError> {
    let output = dir.join("httpd.out");
    let out = fs::File::options()
        .create(true)
        .append(true)
        .open(&output)
        .at(&output)?;
    let err = out.try_clone().at(&output)?;
    let program = dir.join("bin/posttls-httpd");
    let mut child = Command::new(&program)
        .arg("--config")
        .arg(dir.join("posttls.toml"))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .at(&program)?;
    let pid_file = dir.join("httpd.pid");
    fs::write(&pid_file, child.id().to_string()).at(&pid_file)?;
    let deadline = Instant::now() + Duration::from_secs(15);
    while !speaks_http(port) {
        let ended = child.try_wait().at(&program)?;
        if ended.is_some() || Instant::now() > deadline {
            let status = ended.map_or("no answer to HTTP".to_owned(), |s| s.to_string());
            child.kill().ok();
            child.wait().ok();
            let output = fs::read_to_string(&output).unwrap_or_default();
            if output.contains("Address already in use") {
                return Err(SandboxError::PortLost(port));
            }
            return Err(SandboxError::Command {
                command: program.display().to_string(),
                status,
                output,
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// Is a web child there with a mover behind it? The child of a mover that died still answers for a moment, but not this.
fn speaks_http(port: u16) -> bool {
    let answer = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start)
    });
    answer.is_ok_and(|start| &start == b"HTTP/1.1 200")
}

/// Ends the `posttls-httpd` of the sandbox in `dir`, if it runs: SIGTERM, after fifteen seconds SIGKILL.
pub(super) fn stop_httpd(dir: &Path) {
    let pid_file = dir.join("httpd.pid");
    let pid = fs::read_to_string(&pid_file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|pid| is_httpd_of(*pid, dir)) {
        kill_process(pid, Signal::TERM).ok();
        let deadline = Instant::now() + Duration::from_secs(15);
        while test_kill_process(pid).is_ok() && is_httpd_of(pid, dir) {
            if Instant::now() > deadline {
                kill_process(pid, Signal::KILL).ok();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    fs::remove_file(pid_file).ok();
}

/// Process IDs are reused: the process must have been started with this sandbox's configuration. A zombie has no
/// command line, so it does not count as running.
fn is_httpd_of(pid: Pid, dir: &Path) -> bool {
    let config = dir.join("posttls.toml");
    fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|word| word == config.as_os_str().as_encoded_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::level_of;

    #[test]
    fn each_version_has_a_level_that_it_knows() {
        for (version, level) in [
            ("3.4.29", "2"),
            ("3.5.25", "2"),
            ("3.7.11", "3.7"),
            ("3.11.7", "3.11"),
            ("3.12-20260821", "3.12"),
            ("4.0.0", "4.0"),
        ] {
            assert_eq!(level_of(version), level);
        }
    }
}
