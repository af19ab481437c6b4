//! Checks of the next boot: what runs now was perhaps started by hand, and is gone when the host comes up again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::context::Context;
use super::{Outcome, Skip, Verdict};
use crate::postfix::Settings;
use crate::postfix::command::answer;
use crate::postfix::instance::PROGRAM_PATH;
use crate::postfix::settings::{self, list};
use crate::text;

const PATIENCE: Duration = Duration::from_secs(10);
const HTTPD: &str = "posttls-httpd.service";
const POSTFIX: &str = "postfix.service";

/// Is that the same directory, by whatever name?
fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Does this instance start the may instance with itself? `None` when it starts no others.
fn lists(primary: &Settings, may: &Settings) -> Option<bool> {
    let named = list(primary.get("multi_instance_directories"));
    (!named.is_empty()).then(|| {
        named
            .iter()
            .any(|directory| same(Path::new(directory), &may.config_dir))
    })
}

/// Postfix's own part (postmulti(1)): a host starts the instances that its first one names, if they are enabled.
pub(super) fn may_enabled(at: &Context<'_>) -> Outcome {
    let (encrypt, may) = (at.encrypt()?, at.may()?);
    let directory = may.config_dir.display();
    let usual = match settings::default_directory() {
        Ok(usual) => usual,
        Err(error) => return Ok(Verdict::fail(error.to_string(), "install Postfix")),
    };
    // The encrypt instance is the first one, or an instance beside that of /etc/postfix.
    let mut primary = encrypt.config_dir.clone();
    let mut listed = lists(encrypt, may);
    if listed.is_none() && !same(&encrypt.config_dir, &usual) {
        if same(&may.config_dir, &usual) {
            listed = Some(true);
        } else if let Ok(first) = Settings::load(&usual) {
            listed = lists(&first, may).filter(|found| *found);
        }
        primary = usual.clone();
        if listed.is_none() {
            return Ok(Verdict::warn(
                format!(
                    "may instance: {directory} is not in multi_instance_directories of {}",
                    usual.display()
                ),
                "see for yourself who starts both instances after a boot: it is not Postfix's own start",
            ));
        }
    }
    let primary = primary.display();
    if listed != Some(true) {
        return Ok(Verdict::fail(
            format!(
                "may instance: {directory} is not in multi_instance_directories of {primary}: it is not started after a boot"
            ),
            format!(
                "postmulti -e import -I postfix-may -G mta {directory}; postmulti -i postfix-may -e enable"
            ),
        ));
    }
    let enabled = may.get("multi_instance_enable");
    Ok(if enabled == "yes" {
        Verdict::ok(format!(
            "may instance: Postfix's start in {primary} knows it, and it is enabled"
        ))
    } else {
        let name = may.get("multi_instance_name");
        Verdict::fail(
            format!(
                "may instance: multi_instance_enable = {enabled}: it is not started after a boot"
            ),
            format!("postmulti -i {name} -e enable"),
        )
    })
}

/// What systemd knows of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unit {
    loaded: String,
    file: String,
    wanted: bool,
}

impl Unit {
    /// Reads what `systemctl show` prints.
    fn parse(text: &str) -> Self {
        let mut unit = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "LoadState" => value.clone_into(&mut unit.loaded),
                "UnitFileState" => value.clone_into(&mut unit.file),
                "WantedBy" | "RequiredBy" => unit.wanted |= !value.is_empty(),
                _ => {}
            }
        }
        unit
    }

    fn ask(name: &str) -> Result<Self, String> {
        let mut command = Command::new("systemctl");
        command
            .env_clear()
            .env("PATH", PROGRAM_PATH)
            .args([
                "show",
                "--property=LoadState,UnitFileState,WantedBy,RequiredBy",
            ])
            .args(["--", name]);
        let output = answer(&mut command, &[], PATIENCE).map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(text::readable(
                &String::from_utf8_lossy(&output.stderr),
                200,
            ));
        }
        Ok(Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    fn exists(&self) -> bool {
        self.loaded != "not-found"
    }

    /// Is it started by a boot? What is enabled until then only (`enabled-runtime`) is not.
    fn starts(&self) -> bool {
        self.loaded == "loaded" && self.wanted && !self.file.ends_with("-runtime")
    }

    fn shown(&self) -> String {
        if self.exists() {
            format!("{} {}", self.loaded, self.file)
        } else {
            "not found".to_owned()
        }
    }
}

fn systemd() -> Result<(), Skip> {
    // As sd_booted(3) does it.
    if Path::new("/run/systemd/system").is_dir() {
        Ok(())
    } else {
        Err(Skip("systemd does not run here"))
    }
}

pub(super) fn httpd_unit(_: &Context<'_>) -> Outcome {
    systemd()?;
    Ok(match Unit::ask(HTTPD) {
        Err(error) => Verdict::fail(
            format!("systemctl show {HTTPD}: {error}"),
            "ask systemd by hand",
        ),
        Ok(unit) if unit.starts() => Verdict::ok(format!("{HTTPD} is started by a boot")),
        Ok(unit) if unit.exists() => Verdict::fail(
            format!("{HTTPD} is not started by a boot ({})", unit.shown()),
            format!("systemctl enable {HTTPD}"),
        ),
        Ok(_) => Verdict::warn(
            format!("systemd has no unit {HTTPD}"),
            "install postfix-conf/posttls-httpd.service, or see for yourself who starts posttls-httpd after a boot",
        ),
    })
}

/// Debian up to 12 has a generator that adds every enabled instance to postfix.service when the host boots.
fn is_generated() -> bool {
    ["/usr/lib/systemd", "/lib/systemd"]
        .iter()
        .any(|directory| {
            Path::new(directory)
                .join("system-generators/postfix-instance-generator")
                .exists()
        })
}

/// The unit of an instance. Debian 12 names it after the instance, Debian 13 after the end of its directory's name: its
/// template sets `MAIL_CONFIG=/etc/postfix-%I`.
fn unit_name(instance: &str, directory: &Path, generated: bool) -> String {
    let end = directory
        .to_str()
        .and_then(|path| path.strip_prefix("/etc/postfix-"))
        .filter(|end| !generated && !end.is_empty() && !end.contains('/'));
    let name = match (end, instance) {
        (Some(end), _) => escaped(end),
        (None, "") => "-".to_owned(),
        (None, name) => name.to_owned(),
    };
    format!("postfix@{name}.service")
}

/// A part of a unit's name, as systemd-escape(1) writes it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for (place, octet) in text.bytes().enumerate() {
        match octet {
            b'.' if place == 0 => escaped.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                escaped.push(char::from(octet));
            }
            _ => escaped.push_str(&format!("\\x{octet:02x}")),
        }
    }
    escaped
}

/// What systemd starts for an instance, by its unit and that of Postfix.
fn judged(name: &str, own: &Unit, postfix: &Unit, generated: bool) -> Verdict {
    if !postfix.starts() {
        return Verdict::fail(
            format!("{POSTFIX} is not started by a boot ({})", postfix.shown()),
            format!("systemctl enable {POSTFIX}"),
        );
    }
    if own.starts() {
        return Verdict::ok(format!("may instance: {name} is started by a boot"));
    }
    if generated {
        return Verdict::ok(format!(
            "may instance: {POSTFIX} starts the enabled instances after a boot"
        ));
    }
    if own.exists() {
        return Verdict::fail(
            format!(
                "may instance: {name} is not started by a boot ({})",
                own.shown()
            ),
            format!("systemctl enable {name}"),
        );
    }
    // Where there is no unit for each, the one of Postfix starts all.
    Verdict::ok(format!(
        "may instance: {POSTFIX}, which starts all instances, is started by a boot"
    ))
}

pub(super) fn may_unit(at: &Context<'_>) -> Outcome {
    let may = at.may()?;
    systemd()?;
    let generated = is_generated();
    let name = unit_name(may.get("multi_instance_name"), &may.config_dir, generated);
    let todo = "ask systemd by hand";
    Ok(match (Unit::ask(&name), Unit::ask(POSTFIX)) {
        (Ok(own), Ok(postfix)) => judged(&name, &own, &postfix, generated),
        (Err(error), _) | (_, Err(error)) => {
            Verdict::fail(format!("systemctl show {name}: {error}"), todo)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn unit(loaded: &str, file: &str, wanted: &str) -> Unit {
        Unit::parse(&format!(
            "RequiredBy=\nWantedBy={wanted}\nLoadState={loaded}\nUnitFileState={file}\n"
        ))
    }

    #[test]
    fn only_what_somebody_wants_is_started() {
        assert!(unit("loaded", "enabled", "multi-user.target").starts());
        assert!(unit("loaded", "static", "postfix.service").starts());
        for (loaded, file, wanted) in [
            ("loaded", "disabled", ""),
            ("loaded", "enabled-runtime", "multi-user.target"),
            ("masked", "masked", ""),
            ("not-found", "", ""),
        ] {
            assert!(!unit(loaded, file, wanted).starts(), "{loaded} {file}");
        }
    }

    #[test]
    fn a_unit_has_the_name_that_the_release_gives_it() {
        for (instance, directory, generated, name) in [
            (
                "postfix-may",
                "/etc/postfix-may",
                true,
                "postfix@postfix-may.service",
            ),
            (
                "postfix-may",
                "/etc/postfix-may",
                false,
                "postfix@may.service",
            ),
            (
                "out",
                "/etc/postfix-out-2",
                false,
                r"postfix@out\x2d2.service",
            ),
            (
                "postfix-may",
                "/srv/postfix-may",
                false,
                "postfix@postfix-may.service",
            ),
            ("", "/etc/postfix", true, "postfix@-.service"),
        ] {
            let unit = unit_name(instance, Path::new(directory), generated);
            assert_eq!(unit, name, "{instance} {directory}");
        }
    }

    #[test]
    fn an_instance_is_started_as_the_release_does_it() {
        let on = unit("loaded", "enabled", "multi-user.target");
        let off = unit("loaded", "disabled", "");
        let none = unit("not-found", "", "");
        for (own, postfix, generated, status) in [
            // Debian 13: each instance by itself.
            (&on, &on, false, Status::Ok),
            (&off, &on, false, Status::Fail),
            // Debian 12, before and after its generator has run.
            (&off, &on, true, Status::Ok),
            (
                &unit("loaded", "static", "postfix.service"),
                &on,
                true,
                Status::Ok,
            ),
            // One unit for all.
            (&none, &on, false, Status::Ok),
            (&on, &off, true, Status::Fail),
            (&none, &none, false, Status::Fail),
        ] {
            let verdict = judged("postfix@may.service", own, postfix, generated);
            assert_eq!(verdict.status, status, "{verdict:?}");
        }
    }
}
