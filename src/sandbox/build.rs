//! Lays a sandbox out on disk: directories and their owners, keys, programs, and the files of all three instances.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::config::{self, Place};
use super::error::AtPath;
use super::ports::Ports;
use super::process::{compatibility_level, postfix_tool, run, run_silently};
use super::{Instance, SandboxError, UpOptions};
use crate::case::store::Store;

const PROGRAMS: [&str; 4] = ["posttls", "posttls-pipe", "posttls-httpd", "posttls-ear"];

/// The queue directory of an instance.
pub(super) fn spool(options: &UpOptions, instance: Instance) -> PathBuf {
    options
        .spools
        .iter()
        .find(|(of, _)| *of == instance)
        .map_or_else(
            || options.dir.join("spool").join(instance.as_str()),
            |(_, dir)| dir.clone(),
        )
}

/// Writes everything but `sandbox.json`.
pub(super) fn lay_out(options: &UpOptions, ports: &Ports, nonce: &str) -> Result<(), SandboxError> {
    let dir = &options.dir;
    let pipe = (
        id_of("passwd", &options.pipe_user.0)?,
        id_of("group", &options.pipe_user.1)?,
    );
    let postfix = id_of("passwd", "postfix")?;
    let postdrop = id_of("group", "postdrop")?;
    id_of("passwd", &options.web_user)?;

    make_dir(dir, 0o755, None)?;
    for instance in Instance::ALL {
        make_spool(&spool(options, instance), postfix, postdrop)?;
    }
    check_traversable(options)?;
    for name in ["bin", "data"] {
        make_dir(&dir.join(name), 0o755, None)?;
    }
    make_dir(&dir.join("run"), 0o711, None)?;
    for name in ["inbox", "delivered"] {
        make_dir(&dir.join(name), 0o755, Some(pipe))?;
    }
    make_dir(&dir.join("state"), 0o700, Some(pipe))?;
    make_store(&dir.join("state/posttls.db"), pipe)?;
    install_programs(options)?;

    let log = dir.join("posttls.log");
    write(&log, "", 0o666)?;
    let key = dir.join("key");
    write(&key, &format!("1 {}\n", random_hex::<32>()), 0o640)?;
    chown(&key, None, Some(pipe.1)).at(&key)?;
    let toml = dir.join("posttls.toml");
    write(&toml, &posttls_toml(options, ports), 0o640)?;
    chown(&toml, None, Some(pipe.1)).at(&toml)?;

    let level = compatibility_level()?;
    for instance in Instance::ALL {
        let place = Place {
            instance,
            config: &dir.join(instance.as_str()),
            queue: &spool(options, instance),
            data: &dir.join("data").join(instance.as_str()),
            log: &dir.join(format!("{instance}.log")),
            level: &level,
            nonce,
        };
        make_dir(place.config, 0o755, None)?;
        make_dir(place.data, 0o700, Some((postfix, 0)))?;
        let main = config::main_cf(&place, ports, options)?;
        write(&place.config.join("main.cf"), &main, 0o644)?;
        let master = config::master_cf(&place, ports, options, &dir.join("bin"))?;
        write(&place.config.join("master.cf"), &master, 0o644)?;
        if instance == Instance::Mx {
            make_certificate(place.config, "tls")?;
            // A second one; who trusts the first does not trust it.
            make_certificate(place.config, "other")?;
        } else {
            write(
                &place.config.join("transport"),
                &ports.transport_table(),
                0o644,
            )?;
        }
        let files = match instance {
            Instance::Encrypt => config::ENCRYPT_FILES,
            Instance::May if options.ear => config::EAR_FILES,
            Instance::May => &[],
            Instance::Mx => config::MX_FILES,
        };
        for (name, text) in files {
            write(&place.config.join(name), text, 0o644)?;
        }
        if options.check {
            check_silent(place.config)?;
        }
        // postfix-script(1) then leaves out what has just been done, and what an installation may need, but no sandbox.
        write(&place.queue.join("quick-start"), "", 0o644)?;
    }
    Ok(())
}

/// The directories of a queue, with the owners and modes of Postfix's own list, postfix-files.
fn make_spool(queue: &Path, postfix: u32, postdrop: u32) -> Result<(), SandboxError> {
    make_dir(queue, 0o755, None)?;
    make_dir(&queue.join("pid"), 0o755, None)?;
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ] {
        make_dir(&queue.join(name), 0o700, Some((postfix, 0)))?;
    }
    for (name, mode) in [("maildrop", 0o730), ("public", 0o710)] {
        make_dir(&queue.join(name), mode, Some((postfix, postdrop)))?;
    }
    Ok(())
}

/// The database, as `posttls init` makes it.
fn make_store(path: &Path, owner: (u32, u32)) -> Result<(), SandboxError> {
    drop(Store::open(path, true)?);
    chown(path, Some(owner.0), Some(owner.1)).at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).at(path)
}

/// `postfix check`, and `postconf` reading both files, must find nothing to say.
fn check_silent(config: &Path) -> Result<(), SandboxError> {
    run_silently(postfix_tool("postfix", config).arg("check"))?;
    for what in ["-n", "-M", "-P"] {
        let mut command = postfix_tool("postconf", config);
        command.arg(what);
        let output = run(&mut command)?;
        if output.contains("postconf: ") {
            return Err(SandboxError::NotSilent {
                command: format!("{command:?}"),
                output,
            });
        }
    }
    Ok(())
}

/// Links the programs into the sandbox (copies them across file systems): the build directory may be closed to others.
/// A program that does not exist is left out.
fn install_programs(options: &UpOptions) -> Result<(), SandboxError> {
    for name in PROGRAMS {
        let from = options.bin_dir.join(name);
        let to = options.dir.join("bin").join(name);
        if !from.is_file() {
            continue;
        }
        fs::remove_file(&to).ok();
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).at(&to)?;
        }
    }
    Ok(())
}

fn posttls_toml(options: &UpOptions, ports: &Ports) -> String {
    let dir = options.dir.display();
    let (http, smtp) = (ports.http, ports.may);
    format!(
        "[encrypt]\nconfig_dir = \"{dir}/encrypt\"\nremote_hosts = [\"127.0.0.1\"]\n\n\
         [may]\nconfig_dir = \"{dir}/may\"\nown_settings = [\"myhostname\", \"transport_maps\"]\n\n\
         [store]\npath = \"{dir}/state/posttls.db\"\n\n\
         [link]\nkey_file = \"{dir}/key\"\nbase_url = \"http://127.0.0.1:{http}\"\n\n\
         [http]\nlisten = \"127.0.0.1:{http}\"\nweb_user = \"{}\"\n\n\
         [mover]\nrun_dir = \"{dir}/run\"\n\n\
         [notification]\nfrom_address = \"posttls@sender.test\"\nreply_to = \"helpdesk@sender.test\"\nadmin_contact = \"postmaster@sender.test\"\n\
         smtp_host = \"127.0.0.1\"\nsmtp_port = {smtp}\nsmtp_tls = \"none\"\n\n\
         [senders]\ninternal = [\"*\"]\n\n[limits]\nfirst = 100\nper_sender_hour = 10000\n\n[log]\ntarget = \"{dir}/posttls.log\"\n{}",
        options.web_user, options.posttls_toml
    )
}

/// A self-signed certificate with its key, as one file, for the mx.
fn make_certificate(config: &Path, name: &str) -> Result<(), SandboxError> {
    let (key, cert, both) = (
        config.join(format!("{name}-key.pem")),
        config.join(format!("{name}-cert.pem")),
        config.join(format!("{name}.pem")),
    );
    run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "30", "-subj", "/CN=mx.host.test", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert))?;
    let mut text = fs::read_to_string(&key).at(&key)?;
    text.push_str(&fs::read_to_string(&cert).at(&cert)?);
    write(&both, &text, 0o600)
}

/// Postfix's processes, the hook and the web child run as other users.
fn check_traversable(options: &UpOptions) -> Result<(), SandboxError> {
    let spools = Instance::ALL.map(|instance| spool(options, instance));
    for start in spools.iter().chain([&options.dir]) {
        for dir in start.ancestors() {
            if fs::metadata(dir).at(dir)?.mode() & 0o001 == 0 {
                return Err(SandboxError::NotTraversable(dir.to_owned()));
            }
        }
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), SandboxError> {
    fs::create_dir_all(path).at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at(path)?;
    if let Some((user, group)) = owner {
        chown(path, Some(user), Some(group)).at(path)?;
    }
    Ok(())
}

/// Writes a file as if ten seconds ago: Postfix waits until a file that has just changed is a second old.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), SandboxError> {
    fs::write(path, text).at(path)?;
    let settled = SystemTime::now() - Duration::from_secs(10);
    let file = fs::File::options().append(true).open(path).at(path)?;
    file.set_modified(settled).at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at(path)
}

/// The number of a user or group, through the host's name service.
fn id_of(database: &str, name: &str) -> Result<u32, SandboxError> {
    run(Command::new("getent").args([database, name]))
        .ok()
        .and_then(|line| line.split(':').nth(2)?.parse().ok())
        .ok_or_else(|| SandboxError::NoSuchUser(name.to_owned()))
}

/// `N` random bytes in hexadecimal digits.
pub(super) fn random_hex<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
