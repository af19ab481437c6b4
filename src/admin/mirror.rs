//! `posttls mirror`: gives the may instance what it needs to send mail the same way as the encrypt instance.

use std::path::Path;

use clap::Args;

use super::{AdminError, Done, print};
use crate::config::Config;
use crate::exit::Exit;
use crate::postfix::mirror::{self, Comparison, Difference, Remedy, Side};

#[derive(Debug, Args)]
pub(super) struct MirrorOptions {
    /// Change the may instance's main.cf and master.cf; copies of both are kept beside them. Without it, what would be
    /// done is only printed.
    #[arg(long)]
    apply: bool,
}

pub(super) fn run(options: &MirrorOptions, config_path: &Path) -> Done {
    let config = Config::load(config_path)?;
    let (encrypt, may) = (&config.encrypt.config_dir, &config.may.config_dir);
    let compare = || -> Result<Comparison, AdminError> {
        let (encrypt, may) = (Side::load(encrypt)?, Side::load(may)?);
        Ok(mirror::compare(&encrypt, &may, &config.may.own_settings))
    };
    let found = compare()?;
    print(&report(&found, may))?;
    let commands = found.differences.iter().filter_map(Difference::command);
    if !options.apply || commands.count() == 0 {
        return Ok(exit_of(&found));
    }
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let copies = mirror::back_up(may, &stamp).map_err(|error| {
        let text = format!(
            "{}: main.cf and master.cf can't be copied, so nothing was changed: {error}",
            may.display()
        );
        AdminError::new(Exit::Failure, text)
    })?;
    let named: Vec<String> = copies
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    mirror::apply(may, &found.differences).map_err(|error| {
        let text = format!(
            "{error}; some of it may be changed: as it was, it is in {}",
            named.join(" and ")
        );
        AdminError::new(Exit::Failure, text)
    })?;
    // Postfix's word counts, not ours.
    let after = compare()?;
    let stubborn: Vec<&str> = after
        .differences
        .iter()
        .filter(|one| one.command().is_some())
        .map(|one| one.name.as_str())
        .collect();
    if !stubborn.is_empty() {
        let text = format!(
            "{}: still not alike: {}; set by hand what `posttls mirror` prints (as it was, it is in {})",
            may.display(),
            stubborn.join(", "),
            named.join(" and ")
        );
        return Err(AdminError::new(Exit::Failure, text));
    }
    print(&format!(
        "\nDone. As it was: {}.\nIf the may instance runs: postfix -c {} reload\n",
        named.join(", "),
        may.display()
    ))?;
    Ok(exit_of(&after))
}

fn exit_of(found: &Comparison) -> Exit {
    if found.differences.is_empty() {
        Exit::Ok
    } else {
        Exit::Failure
    }
}

fn report(found: &Comparison, may: &Path) -> String {
    let mut out = String::new();
    let may = may.display();
    for one in &found.differences {
        out += &match (&one.remedy, one.command()) {
            (Remedy::ByHand(why), _) => format!("by hand: {}: {why}\n", one.name),
            // A value may hold a password, which is in neither line below.
            (Remedy::Set(value), Some([option, _]))
                if *value != one.encrypt && one.encrypt != "(nothing)" =>
            {
                format!("postconf -c {may} {option} {}=…\n", one.name)
            }
            (_, Some([option, argument])) => {
                format!("postconf -c {may} {option} {}\n", quoted(&argument))
            }
            (_, None) => String::new(),
        };
        out += &format!("    encrypt: {}\n    may:     {}\n", one.encrypt, one.may);
    }
    if found.differences.is_empty() {
        out += "Both instances send the same way.\n";
    }
    for one in &found.left {
        out += &format!("left alone: {}: {}\n", one.name, one.why);
    }
    out
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(name: &str, encrypt: &str, remedy: Remedy) -> Difference {
        Difference {
            name: name.to_owned(),
            encrypt: encrypt.to_owned(),
            may: "(nothing)".to_owned(),
            remedy,
        }
    }

    #[test]
    fn a_report_can_be_typed_and_shows_no_password() {
        let found = Comparison {
            differences: vec![
                difference("relayhost", "[a]", Remedy::Set("[a]".to_owned())),
                difference(
                    "smtp_sasl_password_maps",
                    "static:(not shown)",
                    Remedy::Set("static:u:secret".to_owned()),
                ),
                difference("smtp_x", "it's", Remedy::Set("it's".to_owned())),
                difference("smtp_y", "(nothing)", Remedy::Unset),
                difference("smtp_z", "z", Remedy::ByHand("why")),
            ],
            left: Vec::new(),
        };
        let text = report(&found, Path::new("/m"));
        for line in [
            "postconf -c /m -e 'relayhost=[a]'\n",
            "postconf -c /m -e smtp_sasl_password_maps=…\n",
            "postconf -c /m -e 'smtp_x=it'\\''s'\n",
            "postconf -c /m -X 'smtp_y'\n",
            "by hand: smtp_z: why\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
}
