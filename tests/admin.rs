//! The admin's command by itself: what `init` makes and leaves alone, and what the command line says.

#[path = "common/programs.rs"]
mod programs;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use posttls::postfix::user::lookup;

fn posttls(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_posttls"))
        .env_remove("POSTTLS_CONFIG")
        .args(arguments)
        .output()
        .expect("posttls runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Mode, owner and group.
fn rights(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (
        found.permissions().mode() & 0o7777,
        found.uid(),
        found.gid(),
    )
}

const GIVEN: [&str; 10] = [
    "--base-url",
    "https://mail.example.org/",
    "--from",
    "posttls@example.org",
    "--reply-to",
    "helpdesk@example.org",
    "--admin-contact",
    "IT \"help\" desk",
    "--internal",
    "example.org",
];
const USERS: [&str; 3] = ["--no-users", "--pipe-user", "nobody"];

/// A host on which the paths of the shipped configuration lie below a directory: a configuration with them.
struct Host {
    dir: tempfile::TempDir,
    config: String,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("etc/posttls.toml").display().to_string();
        Self { dir, config }
    }

    /// Writes a configuration that keeps everything below the directory.
    fn configured(self) -> Self {
        let dir = self.dir.path().display();
        fs::create_dir(self.dir.path().join("etc")).expect("a directory");
        let text = format!(
            "[senders]\ninternal = [\"*\"]\n[store]\npath = \"{dir}/lib/posttls.db\"\n[link]\nkey_file = \"{dir}/etc/link.key\"\nbase_url = \"https://x.test\"\n\
             [http]\nweb_user = \"daemon\"\n[mover]\nrun_dir = \"{dir}/run\"\n\
             [notification]\nfrom_address = \"a@x.test\"\nadmin_contact = \"b\"\n[log]\ntarget = \"stderr\"\n"
        );
        fs::write(&self.config, text).expect("a configuration");
        self
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        posttls(&[&["--config", &self.config], arguments].concat())
    }

    fn init(&self, more: &[&str]) -> Output {
        self.run(&[&["init"], &USERS[..], more].concat())
    }
}

#[test]
fn init_makes_what_is_missing_with_the_right_owners() {
    let host = Host::new().configured();
    let nobody = lookup("nobody").expect("a user");
    let output = host.init(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(rights(&host.path("etc/link.key")), (0o640, 0, nobody.gid));
    assert_eq!(rights(&host.path("lib")), (0o700, nobody.uid, nobody.gid));
    assert_eq!(
        rights(&host.path("lib/posttls.db")),
        (0o600, nobody.uid, nobody.gid)
    );
    assert_eq!(rights(&host.path("run")), (0o711, 0, 0));
    for line in [
        "kept     configuration",
        "created  link key",
        "created  database",
        "kept     user nobody",
    ] {
        assert!(said(&output).contains(line), "{}", said(&output));
    }
    let cases = host.run(&["cases", "--json"]);
    assert_eq!((said(&cases).trim(), cases.status.code()), ("[]", Some(0)));
    assert_eq!(said(&host.run(&["cases"])).trim(), "No open cases.");
}

#[test]
fn init_again_changes_nothing() {
    let host = Host::new().configured();
    assert!(host.init(&[]).status.success());
    let key = host.path("etc/link.key");
    // What an admin has changed since is the admin's.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    let files = ["etc/posttls.toml", "etc/link.key", "lib/posttls.db"];
    let before: Vec<_> = files
        .iter()
        .map(|file| fs::read(host.path(file)).expect("a file"))
        .collect();
    let output = host.init(&GIVEN);
    assert!(
        output.status.success() && !said(&output).contains("created"),
        "{}",
        said(&output)
    );
    let after: Vec<_> = files
        .iter()
        .map(|file| fs::read(host.path(file)).expect("a file"))
        .collect();
    assert!(before == after, "a file was overwritten");
    assert_eq!(rights(&key).0, 0o600);
    // Not even what is broken.
    fs::write(&key, "broken\n").expect("a key");
    let output = host.init(&[]);
    assert!(
        !output.status.success() && said(&output).contains("link.key:1: expected a key number"),
        "{}",
        said(&output)
    );
    assert_eq!(fs::read_to_string(&key).expect("a key"), "broken\n");
}

#[test]
fn init_writes_the_shipped_configuration_with_what_it_was_given() {
    let host = Host::new();
    // The web child's user of the shipped file does not exist here, and init may not create it: it stops there.
    let output = host.init(&GIVEN);
    assert_eq!(
        lookup("posttls-web").is_ok(),
        output.status.success(),
        "{}",
        said(&output)
    );
    let nobody = lookup("nobody").expect("a user");
    assert_eq!(rights(Path::new(&host.config)), (0o640, 0, nobody.gid));
    let text = fs::read_to_string(&host.config).expect("a configuration");
    for line in [
        "base_url = \"https://mail.example.org\"",
        "from_address = \"posttls@example.org\"",
        "reply_to = \"helpdesk@example.org\"",
        "admin_contact = 'IT \"help\" desk'",
        "internal = [\"example.org\"]",
        "# REQUIRED.",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(posttls::config::Config::load(Path::new(&host.config)).is_ok());
}

#[test]
fn init_asks_for_what_it_cannot_know() {
    for missing in [0, 2, 4, 6] {
        let host = Host::new();
        let mut given = GIVEN.to_vec();
        given.drain(missing..missing + 2);
        let output = host.init(&given);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(
            said(&output).contains("give --base-url, --from, --reply-to and --admin-contact"),
            "{}",
            said(&output)
        );
        assert!(!Path::new(&host.config).exists());
    }
    let host = Host::new();
    for wrong in [["--from", "no address"], ["--base-url", "nonsense"]] {
        let output = host.init(&wrong);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    }
    let output = host.run(
        &[
            &["init", "--no-users", "--pipe-user", "no-such-user"],
            &GIVEN[..],
        ]
        .concat(),
    );
    assert!(
        !output.status.success() && said(&output).contains("no-such-user"),
        "{}",
        said(&output)
    );
}

/// Makes an instance's configuration directory with these settings.
fn instance(host: &Host, settings: &str) -> String {
    let dir = host.path("postfix");
    let level = posttls::sandbox::compatibility_level().expect("a level");
    fs::create_dir(&dir).expect("a directory");
    fs::write(
        dir.join("main.cf"),
        format!("compatibility_level = {level}\n{settings}"),
    )
    .expect("main.cf");
    fs::write(dir.join("master.cf"), "").expect("master.cf");
    dir.display().to_string()
}

#[test]
fn init_asks_the_senders_of_the_encrypt_instances_own_domains() {
    let host = Host::new();
    let dir = instance(
        &host,
        "myhostname = mail.example.org\nmydestination = $myhostname, localhost.$mydomain, localhost\n\
         virtual_mailbox_domains = example.com, hash:$config_directory/domains\nrelay_domains =\n",
    );
    let output = host.init(&[&["--encrypt-dir", &dir], &GIVEN[..8]].concat());
    let text = fs::read_to_string(&host.config).expect("a configuration");
    let table: toml::Table = text.parse().expect("TOML");
    let internal = &table["senders"]["internal"];
    let expected = ["mail.example.org", "example.com", "example.org"];
    assert_eq!(*internal, toml::Value::from(expected.to_vec()));
    assert_eq!(table["encrypt"]["config_dir"].as_str(), Some(dir.as_str()));
    let said = said(&output);
    assert!(
        said.contains("Asked are the senders of: mail.example.org, example.com, example.org.")
            && said.contains(&format!("virtual_mailbox_domains: hash:{dir}/domains")),
        "{said}"
    );
}

#[test]
fn init_asks_whose_senders_are_to_be_asked_when_postfix_does_not_say() {
    let host = Host::new();
    let dir = instance(
        &host,
        "myhostname = localhost\nmydomain = localdomain\nmydestination = hash:/x\nvirtual_alias_maps =\n",
    );
    let given = [&["--encrypt-dir", &dir], &GIVEN[..8]].concat();
    let output = host.init(&given);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(
        said(&output).contains("--internal DOMAIN")
            && said(&output).contains("mydestination: hash:/x"),
        "{}",
        said(&output)
    );
    assert!(!Path::new(&host.config).exists());
    let output = host.init(&[&given[..], &["--internal", "*.example.org"]].concat());
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    let missing = host.path("none").display().to_string();
    let output = host.init(&[&["--encrypt-dir", &missing], &GIVEN[..8]].concat());
    assert!(
        said(&output).contains("name them with --internal"),
        "{}",
        said(&output)
    );
    let chosen = [
        &given[..],
        &["--internal", ".example.org", "--internal", "a@example.com"],
    ]
    .concat();
    host.init(&chosen);
    let text = fs::read_to_string(&host.config).expect("a configuration");
    assert!(
        text.contains("internal = [\".example.org\", \"a@example.com\"]"),
        "{text}"
    );
}

#[test]
fn only_root_may_init() {
    let host = Host::new().configured();
    fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let program = host.path("posttls");
    programs::install(env!("CARGO_BIN_EXE_posttls"), &program);
    let output = Command::new("setpriv")
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .arg(program)
        .args(["--config", &host.config, "init"])
        .output()
        .expect("setpriv runs");
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(
        said(&output).contains("must be run as root"),
        "{}",
        said(&output)
    );
}

#[test]
fn mistakes_in_the_configuration_are_named_with_line_and_suggestion() {
    let host = Host::new().configured();
    let good = fs::read_to_string(&host.config).expect("a configuration");
    for (broken, wanted) in [
        (
            good.replace("key_file", "keyfile"),
            ":6: unknown key \"keyfile\" in [link]; did you mean \"key_file\"?",
        ),
        (
            good.replace("[mover]", "[moover]"),
            "unknown section [moover]; did you mean \"mover\"?",
        ),
        (
            good.replace("[log]\n", "[log]\nlevel = 3\n"),
            "unknown key \"level\" in [log]",
        ),
        (good.replace("\"stderr\"", "3"), "log.target: invalid type"),
        (
            good.replace("admin_contact", "# admin_contact"),
            "notification.admin_contact is missing",
        ),
    ] {
        fs::write(&host.config, &broken).expect("a configuration");
        for command in [
            &["cases"][..],
            &["case", "4ABCDEF"],
            &["release", "4ABCDEF"],
            &["delete", "4ABCDEF"],
            &["init", "--no-users", "--pipe-user", "nobody"],
        ] {
            let output = host.run(command);
            assert!(!output.status.success());
            assert!(
                said(&output).contains(wanted) && said(&output).contains("posttls.toml"),
                "{command:?}: {}",
                said(&output)
            );
        }
    }
    let output = posttls(&["--config", "/nowhere/posttls.toml", "cases"]);
    assert!(
        said(&output).contains("/nowhere/posttls.toml: cannot read the configuration"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_queue_id_without_a_case_has_an_exit_code_of_its_own() {
    let host = Host::new().configured();
    assert!(host.init(&[]).status.success());
    for command in ["case", "release", "delete"] {
        let output = host.run(&[command, "4ABCDEF"]);
        assert_eq!(
            output.status.code(),
            Some(66),
            "{command}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains("4ABCDEF: PostTLS has no case of this queue ID"),
            "{}",
            said(&output)
        );
        assert_eq!(
            host.run(&[command, "../../etc/passwd"]).status.code(),
            Some(64)
        );
        assert_eq!(host.run(&[command]).status.code(), Some(64));
    }
}
