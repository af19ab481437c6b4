//! The configuration of the sandbox's Postfix instances: the shipped files, unchanged but for the places that name
//! this installation, on top of what any instance needs.

use std::fmt::Write;
use std::path::Path;

use super::ports::{DOMAINS, Ports};
use super::{Instance, SandboxError, UpOptions};

/// The files of postfix-conf/ that stand beside the encrypt instance's main.cf.
pub(super) const ENCRYPT_FILES: &[(&str, &str)] = &[
    (
        "posttls-bounce.cf",
        include_str!("../../postfix-conf/posttls-bounce.cf"),
    ),
    (
        "posttls-header-checks",
        include_str!("../../postfix-conf/posttls-header-checks"),
    ),
    (
        "posttls-status-filter",
        include_str!("../../postfix-conf/posttls-status-filter"),
    ),
];
/// The same for the may instance, with posttls-ear.
pub(super) const EAR_FILES: &[(&str, &str)] = &[(
    "posttls-ear-replies",
    include_str!("../../postfix-conf/posttls-ear-replies"),
)];
const ENCRYPT_MAIN: &str = include_str!("../../postfix-conf/encrypt-main.cf");
const MAY_MAIN: &str = include_str!("../../postfix-conf/may-main.cf");
const MAY_EAR: &str = include_str!("../../postfix-conf/may-ear.cf");
const MAY_MASTER: &str = include_str!("../../postfix-conf/may-master.cf");
const ENCRYPT_MASTER: &str = include_str!("../../master.cf.example");

/// Services that every instance has. Nothing is chrooted. `defer` is missing: see [`master_cf`].
const MASTER: &str = "\
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
smtp      unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
";
const DEFER: &str = "defer     unix  - - n -     0 bounce\n";

/// Where one instance is.
pub(super) struct Place<'a> {
    pub instance: Instance,
    /// Its configuration directory.
    pub config: &'a Path,
    pub queue: &'a Path,
    pub data: &'a Path,
    pub log: &'a Path,
    /// Its `compatibility_level`.
    pub level: &'a str,
    /// A word that only this sandbox's greetings have.
    pub nonce: &'a str,
}

/// Replaces `token`, which must be in `text` exactly as written.
fn replace(file: &'static str, text: &str, token: &str, by: &str) -> Result<String, SandboxError> {
    if !text.contains(token) {
        return Err(SandboxError::NoToken {
            file,
            token: token.to_owned(),
        });
    }
    Ok(text.replace(token, by))
}

/// The `main.cf` of an instance.
pub(super) fn main_cf(
    place: &Place<'_>,
    ports: &Ports,
    options: &UpOptions,
) -> Result<String, SandboxError> {
    let instance = place.instance;
    let mut text = format!(
        "# Postfix instance of a PostTLS sandbox, made by `posttls sandbox up`.\n\
         compatibility_level = {}\n\
         queue_directory = {}\ndata_directory = {}\nmaillog_file = {}\nmaillog_file_prefixes = /\n\
         myhostname = {instance}.host.test\nsmtpd_banner = $myhostname ESMTP {}\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n\
         smtp_dns_support_level = disabled\nsmtpd_peername_lookup = no\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         smtpd_recipient_limit = 100000\nsmtpd_error_sleep_time = 0\nin_flow_delay = 0\n\
         local_transport = error:5.1.1 nobody lives here\nalias_maps =\nalias_database =\n",
        place.level,
        place.queue.display(),
        place.data.display(),
        place.log.display(),
        place.nonce,
    );
    match instance {
        Instance::Encrypt => {
            let table = "transport_maps = inline:{posttls.invalid=posttls:}\n";
            let both = format!(
                "transport_maps = inline:{{posttls.invalid=posttls:}}, texthash:{}/transport\n",
                place.config.display()
            );
            text.push_str(
                "mydestination =\nmessage_size_limit = 67108864\nmailbox_size_limit = 0\n",
            );
            writeln!(
                text,
                "smtp_tls_policy_maps = inline:{{{{[127.0.0.1]:{} = secure}}}}",
                ports.domains["cert.test"]
            )
            .ok();
            text.push_str(&replace("encrypt-main.cf", ENCRYPT_MAIN, table, &both)?);
        }
        Instance::May => {
            writeln!(
                text,
                "transport_maps = texthash:{}/transport",
                place.config.display()
            )
            .ok();
            // Nobody wants to watch a demo for five minutes.
            text.push_str("queue_run_delay = 3s\n");
            // The sandbox submits notifications here, so this may instance listens on the loopback interface.
            text.push_str(&replace(
                "may-main.cf",
                MAY_MAIN,
                "master_service_disable = inet\n",
                "master_service_disable =\n",
            )?);
            if options.ear {
                text.push_str(MAY_EAR);
            }
        }
        Instance::Mx => text.push_str(&mx_main_cf(place.config, options.mx_dialogue)),
    }
    if options.long_queue_ids.contains(&instance) {
        text = set(&text, "enable_long_queue_ids", "yes");
    }
    if let Some((names, depth)) = &options.hash_queues
        && instance != Instance::Mx
    {
        text = set(&text, "hash_queue_names", names);
        text = set(&text, "hash_queue_depth", &depth.to_string());
    }
    for (_, name, value) in options.main_cf.iter().filter(|(of, ..)| *of == instance) {
        text = set(&text, name, value);
    }
    Ok(text)
}

/// The mx takes any recipient but a few, alters nothing, and hands every message to `posttls sandbox deliver`.
fn mx_main_cf(config: &Path, dialogue: bool) -> String {
    let mut text = format!(
        "mydestination =\nmessage_size_limit = 0\nmailbox_size_limit = 0\n\
         transport_maps = inline:{{sender.test=inbox:}}\ndefault_transport = deliver\n\
         deliver_destination_recipient_limit = 1\ninbox_destination_recipient_limit = 1\n\
         deliver_destination_concurrency_limit = 20\n\
         local_header_rewrite_clients =\nmessage_drop_headers =\n\
         smtpd_tls_chain_files = {0}/tls.pem\nsmtpd_tls_security_level = none\nsmtpd_tls_loglevel = 1\n\
         smtpd_tls_received_header = yes\n\
         smtpd_sender_restrictions = check_sender_access texthash:{0}/senders\n\
         smtpd_recipient_restrictions = check_recipient_access texthash:{0}/recipients\n",
        config.display()
    );
    if dialogue {
        text.push_str("debug_peer_list = 127.0.0.0/8\ndebug_peer_level = 1\n");
    }
    text
}

/// Tables beside the mx's main.cf. To refuse STARTTLS, the command becomes a MAIL command that is refused.
pub(super) const MX_FILES: &[(&str, &str)] = &[
    (
        "refuse-454",
        "/^STARTTLS[[:space:]]*$/ MAIL FROM:<refuse-454@starttls.invalid>\n",
    ),
    (
        "refuse-554",
        "/^STARTTLS[[:space:]]*$/ MAIL FROM:<refuse-554@starttls.invalid>\n",
    ),
    (
        "senders",
        "refuse-454@starttls.invalid 454 4.7.0 TLS not available due to temporary reason\n\
         refuse-554@starttls.invalid 554 5.7.0 TLS not available\n",
    ),
    (
        "recipients",
        "nouser@tls.test 550 5.1.1 no such user\n\
         busy@tls.test 450 4.2.0 mailbox busy\n\
         forged4@tls.test 450 4.7.802 TLS is required, but host x refused to start TLS: this is a lie\n\
         forged5@tls.test 550 5.7.801 TLS is required, but was not offered by host x\n",
    ),
];

/// The `master.cf` of an instance. `programs` is the directory that PostTLS's programs are run from.
pub(super) fn master_cf(
    place: &Place<'_>,
    ports: &Ports,
    options: &UpOptions,
    programs: &Path,
) -> Result<String, SandboxError> {
    let mut text = MASTER.to_owned();
    match place.instance {
        Instance::Encrypt => {
            let smtpd = ports.encrypt;
            writeln!(text, "127.0.0.1:{smtpd} inet n - n - - smtpd").ok();
            text.push_str(&encrypt_master(options, programs)?);
        }
        Instance::May => {
            writeln!(text, "127.0.0.1:{} inet n - n - - smtpd", ports.may).ok();
            text.push_str(DEFER);
            text.push_str(&may_master(options, programs)?);
        }
        Instance::Mx => {
            text.push_str(DEFER);
            for domain in DOMAINS {
                let port = ports.domains[domain.name];
                writeln!(text, "127.0.0.1:{port} inet n - n - - smtpd").ok();
                for setting in domain.smtpd {
                    let setting = setting.replace("@DIR@", &place.config.display().to_string());
                    writeln!(text, "  -o {{ {setting} }}").ok();
                }
            }
            let deliver = format!(
                "unix - n n - 20 pipe\n  user={}:{} argv={}/posttls sandbox deliver",
                options.pipe_user.0,
                options.pipe_user.1,
                programs.display()
            );
            let dir = options.dir.display();
            writeln!(
                text,
                "deliver {deliver} --maildir-root {dir}/delivered --recipient ${{recipient}}"
            )
            .ok();
            writeln!(text, "inbox {deliver} --maildir {dir}/inbox").ok();
        }
    }
    Ok(text)
}

fn encrypt_master(options: &UpOptions, programs: &Path) -> Result<String, SandboxError> {
    const FILE: &str = "master.cf.example";
    let (user, group) = &options.pipe_user;
    let program = options
        .hook
        .clone()
        .unwrap_or_else(|| programs.join("posttls-pipe"));
    let text = replace(
        FILE,
        ENCRYPT_MASTER,
        "user=posttls\n",
        &format!("user={user}:{group}\n"),
    )?;
    let text = replace(
        FILE,
        &text,
        "argv=/usr/local/bin/posttls-pipe ",
        &format!("argv={} ", program.display()),
    )?;
    replace(
        FILE,
        &text,
        " /etc/posttls/posttls.toml ",
        &format!(" {}/posttls.toml ", options.dir.display()),
    )
}

fn may_master(options: &UpOptions, programs: &Path) -> Result<String, SandboxError> {
    const FILE: &str = "may-master.cf";
    let (user, group) = &options.pipe_user;
    let account = format!("user={user}:{group}\n");
    let program = format!("argv={}/posttls-ear ", programs.display());
    let config = format!(" {}/posttls.toml\n", options.dir.display());
    let text = replace(FILE, MAY_MASTER, "user=posttls\n", &account)?;
    let text = replace(FILE, &text, "argv=/usr/local/bin/posttls-ear ", &program)?;
    replace(FILE, &text, " /etc/posttls/posttls.toml\n", &config)
}

/// Sets a main.cf parameter, in place of an earlier setting with its continuation lines.
fn set(text: &str, name: &str, value: &str) -> String {
    let mut out = String::new();
    let mut dropping = false;
    for line in text.lines() {
        let continues = line.starts_with([' ', '\t']);
        if !(continues || line.starts_with('#')) {
            dropping = line.split('=').next().map(str::trim) == Some(name);
        }
        if !dropping || line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out + &format!("{name} = {value}\n")
}

#[cfg(test)]
mod tests {
    use super::set;

    #[test]
    fn a_setting_replaces_the_earlier_one_with_its_continuation() {
        let text = "a = 1\nb =\n  2,\n  3\n# c\nd = 4\n";
        assert_eq!(set(text, "b", "5"), "a = 1\n# c\nd = 4\nb = 5\n");
    }
}
