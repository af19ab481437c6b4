//! What `posttls init` must know before it writes a configuration: given on the command line, or found in the settings of
//! the encrypt instance. Asked for before anything is made.

use std::path::{Path, PathBuf};

use super::AdminError;
use super::init::InitOptions;
use crate::address::Address;
use crate::config::SenderPattern;
use crate::exit::Exit;
use crate::postfix::domains::own_domains;
use crate::text;

/// What a configuration file can't do without.
pub(super) struct Answers<'a> {
    pub(super) base_url: &'a str,
    pub(super) from: &'a Address,
    pub(super) reply_to: &'a Address,
    pub(super) contact: &'a str,
    pub(super) encrypt_dir: PathBuf,
    /// Whose senders are asked.
    pub(super) internal: Vec<String>,
    /// What the encrypt instance's own domains also stand in, where they were looked for.
    not_looked_up: Vec<(&'static str, String)>,
}

/// Finds out what the file must say, and makes nothing.
pub(super) fn answers<'a>(
    options: &'a InitOptions,
    path: &Path,
) -> Result<Answers<'a>, AdminError> {
    let (Some(base_url), Some(from), Some(reply_to), Some(contact)) = (
        &options.base_url,
        &options.from,
        &options.reply_to,
        &options.admin_contact,
    ) else {
        return Err(AdminError::new(
            Exit::Usage,
            format!(
                "{}: there is no configuration file yet: give --base-url, --from, --reply-to and --admin-contact",
                path.display()
            ),
        ));
    };
    let mut answers = Answers {
        base_url: base_url.as_str().trim_end_matches('/'),
        from,
        reply_to,
        contact,
        encrypt_dir: std::path::absolute(&options.encrypt_dir)?,
        internal: options.internal.clone(),
        not_looked_up: Vec::new(),
    };
    if answers.internal.is_empty() {
        let found = own_domains(&options.encrypt_dir).map_err(|error| {
            AdminError::new(
                Exit::Failure,
                format!("cannot find out whose senders are to be asked: {error}; name them with --internal, or the instance with --encrypt-dir"),
            )
        })?;
        answers.internal = found.named.into_iter().map(String::from).collect();
        answers.not_looked_up = found.not_looked_up;
    }
    if answers.internal.is_empty() {
        // Neither may strangers be asked, nor nobody, without the admin's word.
        return Err(AdminError::new(
            Exit::Usage,
            format!(
                "{}: names no domain of its own{}: say with --internal DOMAIN whose senders are to be asked (--internal '*': everybody)",
                options.encrypt_dir.display(),
                answers.tables()
            ),
        ));
    }
    Ok(answers)
}

impl Answers<'_> {
    fn tables(&self) -> String {
        let parts = self
            .not_looked_up
            .iter()
            .map(|(parameter, word)| format!("{parameter}: {}", text::readable(word, 200)));
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() {
            String::new()
        } else {
            format!(" (not looked up: {})", parts.join("; "))
        }
    }

    /// Who will be asked, and what the admin must see to.
    pub(super) fn about_senders(&self, config: &Path) -> String {
        let mut out = format!(
            "Asked are the senders of: {}.\nNobody else is; see senders.internal in {}.\n",
            self.internal.join(", "),
            config.display()
        );
        if !self.not_looked_up.is_empty() {
            out.push_str("WARNING: these settings were not looked up. Add the domains of your users that they name:\n");
            for (parameter, word) in &self.not_looked_up {
                out.push_str(&format!("    {parameter}: {}\n", text::readable(word, 200)));
            }
        }
        out
    }
}

/// Checks that text names senders.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    let parsed: Result<SenderPattern, _> = text.parse();
    parsed
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}
