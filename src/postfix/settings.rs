//! All settings of one instance as `postconf` reports them, and what its lookup tables answer.
//!
//! Apart from [`super::instance`], which the mover works with: this is for looking an installation over. Everything is
//! asked once, with three runs of `postconf`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::instance::{ANY, PostfixError, failures, output, output_within, program, run, warnings};
use crate::octets;

/// A service of master.cf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// First column: `smtp`, `127.0.0.1:25`, `defer`.
    pub name: String,
    /// Second column: `inet`, `unix`, `fifo`, `pass`.
    pub kind: String,
    /// Third column: is its socket for Postfix's own processes only?
    pub private: bool,
    /// Fifth column: does it see the queue directory as its root?
    pub chroot: bool,
    /// The program that master(8) runs.
    pub command: String,
    /// Its arguments, `-o` options included.
    pub arguments: Vec<String>,
}

impl Service {
    /// As `postconf` names it: `defer/unix`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.name, self.kind)
    }

    /// The value of an attribute of pipe(8), `user=` for instance: the first word that begins with it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut words = self.arguments.iter();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The command line of pipe(8), from `argv=` on.
    pub fn argv(&self) -> Option<Vec<&str>> {
        let start = self
            .arguments
            .iter()
            .position(|word| word.starts_with("argv="))?;
        let first = self.arguments[start].strip_prefix("argv=")?;
        let rest = self.arguments[start + 1..].iter().map(String::as_str);
        Some(std::iter::once(first).chain(rest).collect())
    }
}

/// Everything that `main.cf` and `master.cf` of an instance say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `-c` takes.
    pub config_dir: PathBuf,
    /// The services of `master.cf`, in its order.
    pub services: Vec<Service>,
    /// What Postfix's commands have warned of since then, each once.
    warned: Arc<Mutex<Vec<String>>>,
    parameters: HashMap<String, String>,
    options: HashMap<String, String>,
}

impl Settings {
    /// Asks `postconf`.
    ///
    /// # Errors
    /// When it can't be run, or can't read the instance's configuration.
    pub fn load(config_dir: &Path) -> Result<Self, PostfixError> {
        let ask = |option| run(program("postconf", config_dir).arg(option));
        let parameters = ask("-x")?;
        let services = ask("-M")?;
        let options = ask("-Px")?;
        let pairs = |text: &[u8]| {
            String::from_utf8_lossy(text)
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                .collect::<HashMap<_, _>>()
        };
        let mut listed: Vec<Service> = Vec::new();
        let mut doubled = Vec::new();
        for service in String::from_utf8_lossy(&services.stdout)
            .lines()
            .filter_map(service_of)
        {
            // master(8) takes the last of two entries.
            if listed.iter().any(|other| other.id() == service.id()) {
                listed.retain(|other| other.id() != service.id());
                let file = config_dir.join("master.cf");
                let (file, id) = (file.display(), service.id());
                doubled.push(format!("{file}: two entries {id}; the last one counts"));
            }
            listed.push(service);
        }
        let settings = Self {
            config_dir: config_dir.to_owned(),
            services: listed,
            warned: Arc::new(Mutex::new(doubled)),
            parameters: pairs(&parameters.stdout),
            options: pairs(&options.stdout),
        };
        for output in [&parameters, &services, &options] {
            settings.heed(output);
        }
        Ok(settings)
    }

    /// Keeps what a command warned of. A warning is no answer: it is told by itself, with the file and line that it names.
    fn heed(&self, output: &Output) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for text in warnings(output) {
            if !warned.iter().any(|known| is_same(known, &text)) {
                warned.push(text);
            }
        }
    }

    /// What Postfix's commands have warned of so far.
    pub fn warned(&self) -> Vec<String> {
        let warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.clone()
    }

    /// The value of a parameter in `main.cf`, or its default; empty when Postfix knows no such parameter.
    pub fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// What `-o` in `master.cf` gives a parameter for one service.
    pub fn option(&self, service: &Service, name: &str) -> Option<&str> {
        let key = format!("{}/{name}", service.id());
        self.options.get(&key).map(String::as_str)
    }

    /// The value of a parameter that holds for a service.
    pub fn for_service(&self, service: &Service, name: &str) -> &str {
        self.option(service, name).unwrap_or_else(|| self.get(name))
    }

    /// The service of this name and type.
    pub fn service(&self, name: &str, kind: &str) -> Option<&Service> {
        self.services
            .iter()
            .find(|service| service.name == name && service.kind == kind)
    }

    /// The services that run this program and are not switched off by `master_service_disable`.
    pub fn running(&self, command: &str) -> impl Iterator<Item = &Service> {
        self.services
            .iter()
            .filter(move |service| service.command == command && !self.is_disabled(service))
    }

    /// Does `master_service_disable` switch the service off?
    pub fn is_disabled(&self, service: &Service) -> bool {
        list(self.get("master_service_disable"))
            .iter()
            .any(|word| *word == service.kind || *word == service.id())
    }

    /// Major and minor version of Postfix; `None` when `mail_version` makes no sense.
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self
            .get("mail_version")
            .split(['.', '-'])
            .map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    }

    /// Does master(8) of this instance run? (`postfix status`)
    ///
    /// One at a time: Postfix answers by taking master's lock for a moment, so of two who ask at once one can take the
    /// other for a master. And for the first instance it asks all of them.
    ///
    /// # Errors
    /// When `postfix` can't be run.
    pub fn is_running(&self) -> Result<bool, PostfixError> {
        static ASKING: Mutex<()> = Mutex::new(());
        let _alone = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        output(program("postfix", &self.config_dir).arg("status"))
            .map(|output| output.status.success())
    }

    /// What a lookup table, such as `regexp:/etc/postfix/table`, has for `key`. (`postmap -q`)
    ///
    /// # Errors
    /// When the table can't be read, or Postfix has no support for its type.
    pub fn lookup(&self, table: &str, key: &str) -> Result<Option<String>, PostfixError> {
        self.lookup_within(ANY, table, key)
    }

    /// The templates of notices as bounce(8) has them with this file: its own in place of those that it can't read, of which
    /// it warns.
    ///
    /// # Errors
    /// When Postfix can't read the file at all.
    pub fn templates(&self, file: &str) -> Result<(String, Vec<String>), PostfixError> {
        let mut command = program("postconf", &self.config_dir);
        let answer = output(command.args(["-t", file]))?;
        if !answer.status.success() {
            return Err(PostfixError::failed(&command, &answer));
        }
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        // What every command warns of is not about this file.
        let warned = self.warned();
        let mut about = warnings(&answer);
        about.retain(|text| !warned.iter().any(|known| is_same(known, text)));
        Ok((text, about))
    }

    /// As [`Settings::lookup`], for one who can't wait long: a table may be another process's to answer.
    ///
    /// # Errors
    /// As [`Settings::lookup`], and when there is no answer in time.
    pub fn lookup_within(
        &self,
        limit: Duration,
        table: &str,
        key: &str,
    ) -> Result<Option<String>, PostfixError> {
        let mut command = program("postmap", &self.config_dir);
        // Where Postfix's own programs look tables up: names of sockets are relative to it.
        let queue = Path::new(self.get("queue_directory"));
        if queue.is_dir() {
            command.current_dir(queue);
        }
        let key = octets::of(key);
        command.arg("-q").arg(OsStr::from_bytes(&key));
        let answer = output_within(command.args(["--", table]), limit)?;
        self.heed(&answer);
        if answer.status.success() {
            let text = String::from_utf8_lossy(&answer.stdout);
            return Ok(Some(text.trim_end().to_owned()));
        }
        if answer.status.code() == Some(1) && failures(&answer.stderr).is_empty() {
            return Ok(None);
        }
        Err(PostfixError::failed(&command, &answer))
    }

    /// What the first of several tables that knows `key` has for it. Words without a colon are no tables.
    ///
    /// # Errors
    /// As [`Settings::lookup`].
    pub fn lookup_in(&self, tables: &str, key: &str) -> Result<Option<String>, PostfixError> {
        for table in list(tables) {
            if table.contains(':')
                && let Some(found) = self.lookup(table, key)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// All keys and values of a table. (`postmap -s`; not every type can tell.)
    ///
    /// # Errors
    /// When the table can't be read, or is of a type that can't be listed.
    pub fn entries(&self, table: &str) -> Result<Vec<(String, String)>, PostfixError> {
        let answer = run(program("postmap", &self.config_dir).args(["-s", "--", table]))?;
        self.heed(&answer);
        Ok(String::from_utf8_lossy(&answer.stdout)
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect())
    }
}

/// The configuration directory of the instance that Postfix takes when nobody names one.
///
/// # Errors
/// When `postconf` can't be run.
pub fn default_directory() -> Result<PathBuf, PostfixError> {
    let mut command = std::process::Command::new("postconf");
    command
        .env_clear()
        .env("PATH", super::instance::PROGRAM_PATH)
        .env("LC_ALL", "C")
        .args(["-d", "-h", "config_directory"]);
    let answer = run(&mut command)?;
    let text = String::from_utf8_lossy(&answer.stdout);
    Ok(PathBuf::from(text.trim_end()))
}

/// Of a parameter that is given twice Postfix's commands warn twice, with either line: that is one matter.
fn is_same(one: &str, other: &str) -> bool {
    const DOUBLED: &str = ": overriding earlier entry: ";
    let parameter = |text: &str| {
        let (_, entry) = text.split_once(DOUBLED)?;
        Some(
            entry
                .split('=')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        )
    };
    one == other || parameter(one).is_some_and(|name| parameter(other) == Some(name))
}

fn service_of(line: &str) -> Option<Service> {
    let mut words = line.split_whitespace().map(str::to_owned);
    let (name, kind) = (words.next()?, words.next()?);
    let private = words.next()? != "n";
    // unprivileged
    let chroot = words.nth(1)? == "y";
    // wakeup, maxproc
    let command = words.nth(2)?;
    Some(Service {
        name,
        kind,
        private,
        chroot,
        command,
        arguments: words.collect(),
    })
}

/// The words of a list in `main.cf`: separated by blanks and commas, but not within braces.
pub fn list(value: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut depth, mut start) = (0i32, 0);
    for (at, c) in value.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth > 0 => {}
            ',' | ' ' | '\t' | '\r' | '\n' => {
                words.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&value[start..]);
    words.retain(|word| !word.is_empty());
    words
}

/// A time such as `120s` or `5d` in seconds; `unit` is that of a bare number.
pub fn seconds(value: &str, unit: char) -> Option<u64> {
    let (number, unit) = match value.char_indices().last()? {
        (at, letter) if letter.is_ascii_alphabetic() => (&value[..at], letter),
        _ => (value, unit),
    };
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_outside_braces() {
        assert_eq!(
            list("inline:{{a = b, c}}, hash:/x  permit"),
            ["inline:{{a = b, c}}", "hash:/x", "permit"]
        );
        assert!(list(" , ").is_empty());
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("120s", Some(120)),
            ("2", Some(7200)),
            ("5d", Some(432_000)),
            ("0", Some(0)),
            ("", None),
            ("x", None),
            ("1y", None),
        ] {
            assert_eq!(seconds(text, 'h'), expected, "{text}");
        }
    }

    #[test]
    fn a_doubled_parameter_is_one_warning() {
        let first = "./main.cf, line 5: overriding earlier entry: relayhost=a";
        let second = "./main.cf, line 4: overriding earlier entry: relayhost=b";
        let other = "./main.cf, line 4: overriding earlier entry: mynetworks=b";
        assert!(is_same(first, second) && is_same(other, other));
        assert!(!is_same(first, other) && !is_same(first, "x"));
    }

    #[test]
    fn a_service_line_is_read() {
        let line = "posttls    unix  -       n       n       -       8       pipe flags=Rq user=a:b argv=/x/posttls-pipe --sender ${sender}";
        let service = service_of(line).unwrap();
        assert_eq!(service.id(), "posttls/unix");
        assert_eq!((service.private, service.command.as_str()), (true, "pipe"));
        assert_eq!(service.attribute("user"), Some("a:b"));
        assert_eq!(
            service.argv().unwrap(),
            ["/x/posttls-pipe", "--sender", "${sender}"]
        );
        assert_eq!(service_of("defer unix - - n"), None);
    }
}
