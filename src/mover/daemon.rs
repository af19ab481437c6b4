//! `posttls-httpd`: the start-up steps of the mover, its signals, and its end.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Desk;
use super::Lookout;
use super::control::{self, ControlError};
use super::courier::CourierKeeper;
use super::engine::Engine;
use super::reconcile::reconcile;
use super::retries::{RETRY_TICK, Retries};
use super::standing;
use super::supervise::Supervisor;
use super::watch::Watch;
use crate::case::store::{Store, StoreError};
use crate::config::{Config, ConfigError};
use crate::confine;
use crate::link::{KeyFileError, Keys};
use crate::logging;
use crate::postfix::Instance;
use crate::postfix::apart;
use crate::postfix::instance::PostfixError;
use crate::postfix::user::{self, UserError};
use crate::web::protocol::Settings;

/// How long an ending daemon waits for moves under way; the journal has what is left after that.
const LAST_MOVES: Duration = Duration::from_secs(5);
/// How long an address may be in use by what our predecessor left behind: more than the web child's farewell.
const BIND_PATIENCE: Duration = Duration::from_secs(4);

/// The program of our children: what runs here, whatever an upgrade has put in the place of its file since, or whether
/// it has removed it. A child that is about to run it asks for itself, and is still this program then.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Why the daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An instance can't be used.
    #[error(transparent)]
    Postfix(#[from] PostfixError),
    /// The web child's user does not exist.
    #[error(transparent)]
    User(#[from] UserError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key can't be read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Another daemon is running, or its directory can't be used.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Not started as root.
    #[error(
        "posttls-httpd must be started as root: it moves files between Postfix's queues (its web child runs as {0})"
    )]
    NotRoot(String),
    /// The web child's user is root.
    #[error("http.web_user = {0:?} is root: name an unprivileged user of its own")]
    WebUserIsRoot(String),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}; see http.listen")]
    Listen {
        /// As configured.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Something that the system must give.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The web child does not come up.
    #[error("the web child did not start; the log says why")]
    Child,
    /// A template can't be read.
    #[error("{path}: cannot read templates: {source}; see http.template_dir")]
    Templates {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs the mover until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start. Once started it does not end by an error.
pub fn run(config_path: &Path) -> Result<(), DaemonError> {
    let apart = apart::start();
    let config = Config::load(config_path)?;
    logging::start("posttls/httpd", &config.log.target);
    if let Err(error) = apart {
        warn!(
            "Postfix's commands take longer the more messages wait: cannot run them apart: {error}"
        );
    }
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::NotRoot(config.http.web_user));
    }
    let web_user = user::lookup(&config.http.web_user)?;
    if web_user.uid == 0 || web_user.gid == 0 {
        return Err(DaemonError::WebUserIsRoot(config.http.web_user));
    }
    // The key and mail are in it.
    confine::keep_memory_private().map_err(|source| DaemonError::System {
        doing: "keep memory out of core files",
        source,
    })?;
    let keys = Keys::load(&config.link.key_file)?;
    let store = Arc::new(Store::open(&config.store.path, false)?);
    let encrypt = Instance::load(&config.encrypt.config_dir)?;
    let may = Instance::load(&config.may.config_dir)?;
    let lock = control::lock(&config.mover.run_dir, &may.queue_directory)?;
    let signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|source| DaemonError::System {
            doing: "catch signals",
            source,
        })?;
    let address = config.http.listen;
    let listener = listen(address).map_err(|source| DaemonError::Listen { address, source })?;

    let engine = Arc::new(Engine::new(
        Arc::clone(&store),
        encrypt,
        may,
        &config.encrypt.remote_hosts,
    ));
    let desk = Arc::new(Desk::new(
        Arc::clone(&store),
        Arc::clone(&engine),
        keys,
        &config,
    ));
    // Before any move: what a store that was restored does not know lies in the queues.
    match engine.pair() {
        Ok(pair) => drop(
            reconcile(&store, &pair.encrypt, &pair.may).inspect_err(|error| {
                error!("{error}; the hold queues are not compared with the journal now")
            }),
        ),
        Err(error) => error!("{error}"),
    }
    Lookout::start(&engine);
    // What a crash has left undone comes before any new decision.
    let mut retries = Retries::default();
    retries.run(&store, &desk);
    control::serve(&config.mover.run_dir, Arc::clone(&desk), &lock)?;
    standing::serve(&config.mover.run_dir, &config.store.path, &engine, &lock)?;
    let forbidden = vec![
        config.store.path.clone(),
        config.link.key_file.clone(),
        config_path.to_owned(),
    ];
    let settings = settings(&config)?;
    let program = PathBuf::from(OWN_PROGRAM);
    let courier = Arc::new(CourierKeeper::new(
        &program,
        config_path,
        &config.store.path,
    ));
    let supervisor = Supervisor::new(
        program,
        web_user,
        listener,
        forbidden,
        settings,
        &desk,
        config.mover.workers,
    );
    let supervisor = Arc::new(supervisor);
    info!(
        "started: encrypt={}, may={}, listening on {address}",
        config.encrypt.config_dir.display(),
        config.may.config_dir.display()
    );

    let serving = {
        let supervisor = Arc::clone(&supervisor);
        let (ready, started) = sync_channel(1);
        let serving = thread::spawn(move || supervisor.run(&ready));
        started.recv().map_err(|_| DaemonError::Child)?;
        serving
    };
    let watch = Watch::start(Arc::clone(&store), Arc::clone(&engine), config.clone());
    let writing = {
        let courier = Arc::clone(&courier);
        thread::spawn(move || courier.run())
    };
    let (retrying, waking) = (Arc::clone(&desk), Arc::clone(&engine));
    thread::spawn(move || {
        loop {
            waking.wake_again();
            if !retries.run(&store, &retrying) {
                thread::sleep(RETRY_TICK);
            }
        }
    });
    obey(
        signals,
        config_path,
        &config,
        &desk,
        &watch,
        &supervisor,
        &courier,
    );
    courier.end();
    supervisor.end();
    if serving.join().is_err() {
        error!("the thread that watches the web child has ended by a panic");
    }
    if writing.join().is_err() {
        error!("the thread that watches the courier has ended by a panic");
    }
    engine.wait_until_idle(LAST_MOVES);
    info!("ended");
    Ok(())
}

/// Binds, in patience: we hold the lock, so what listens may be the web child of a mover that died, saying farewell.
fn listen(address: std::net::SocketAddr) -> std::io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Waits for signals; returns when the daemon is to end.
fn obey(
    mut signals: Signals,
    path: &Path,
    started: &Config,
    desk: &Desk,
    watch: &Watch,
    supervisor: &Supervisor,
    courier: &CourierKeeper,
) {
    for signal in &mut signals {
        if signal != SIGHUP {
            info!("ending on signal {signal}");
            return;
        }
        match reload(path, desk, supervisor) {
            Ok(fresh) => {
                courier.replace();
                info!("reloaded");
                let late = fresh.needs_restart(started);
                watch.reload(fresh);
                if !late.is_empty() {
                    warn!(
                        "these settings have changed, but need a restart: {}",
                        late.join(", ")
                    );
                }
            }
            Err(error) => error!("not reloaded, going on as before: {error}"),
        }
    }
}

/// Reads everything anew before anything is changed.
fn reload(path: &Path, desk: &Desk, supervisor: &Supervisor) -> Result<Config, DaemonError> {
    let config = Config::load(path)?;
    let keys = Keys::load(&config.link.key_file)?;
    let fresh = settings(&config)?;
    desk.reload(keys, &config);
    *supervisor
        .settings
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = fresh;
    supervisor.replace();
    Ok(config)
}

/// What the web child is told, with the admin's templates read for it.
fn settings(config: &Config) -> Result<Settings, DaemonError> {
    let directory = &config.http.template_dir;
    let fault = |source| DaemonError::Templates {
        path: directory.clone(),
        source,
    };
    let mut templates = std::collections::BTreeMap::new();
    if !directory.as_os_str().is_empty() {
        for entry in std::fs::read_dir(directory).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                let text =
                    std::fs::read_to_string(&path).map_err(|source| DaemonError::Templates {
                        path: path.clone(),
                        source,
                    })?;
                templates.insert(name.to_string_lossy().into_owned(), text);
            }
        }
    }
    Ok(Settings {
        admin_contact: config.notification.admin_contact.clone(),
        base_path: config.base_path().to_owned(),
        trusted_proxies: config.http.trusted_proxies.clone(),
        templates,
    })
}
