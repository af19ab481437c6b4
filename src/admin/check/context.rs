//! What several checks need, asked once: both instances' settings, the hook's entry in master.cf, the store's health.

use std::path::{Path, PathBuf};
use std::thread;

use super::Skip;
use crate::case::store::{Health, Store, StoreError};
use crate::config::Config;
use crate::postfix::instance::PostfixError;
use crate::postfix::user::{self, User, UserError};
use crate::postfix::{Service, Settings};

pub(super) use crate::notice::DOMAIN;

/// The hook's address.
pub(super) const ADDRESS: &str = "notice@posttls.invalid";

/// What is known before the first check.
pub(super) struct Context<'a> {
    pub config_path: &'a Path,
    pub config: &'a Config,
    pub encrypt: Result<Settings, PostfixError>,
    pub may: Result<Settings, PostfixError>,
    /// Where the encrypt instance's transport table sends notices, in the form `SERVICE:`.
    pub transport: Option<Result<Option<String>, PostfixError>>,
    pub store: Result<Health, StoreError>,
}

/// Who the hook runs as.
pub(super) struct HookUser {
    pub user: User,
    /// Given as `user=NAME:GROUP`.
    pub group: u32,
}

impl HookUser {
    /// The same user, with the group that the hook has.
    pub fn with_group(&self) -> User {
        User {
            gid: self.group,
            ..self.user.clone()
        }
    }
}

impl<'a> Context<'a> {
    pub fn gather(config_path: &'a Path, config: &'a Config) -> Self {
        thread::scope(|scope| {
            let may = scope.spawn(|| Settings::load(&config.may.config_dir));
            let store = scope.spawn(|| Store::health(&config.store.path));
            let encrypt = Settings::load(&config.encrypt.config_dir);
            let transport = encrypt.as_ref().ok().map(|settings| {
                let tables = settings.get("transport_maps");
                // Postfix's own order: the whole address in every table, then the domain.
                match settings.lookup_in(tables, ADDRESS) {
                    Ok(None) => settings.lookup_in(tables, DOMAIN),
                    found => found,
                }
            });
            Self {
                config_path,
                config,
                encrypt,
                may: may.join().expect("reading settings does not panic"),
                transport,
                store: store.join().expect("looking at the store does not panic"),
            }
        })
    }

    pub fn encrypt(&self) -> Result<&Settings, Skip> {
        self.encrypt
            .as_ref()
            .map_err(|_| Skip("the encrypt instance can't be read"))
    }

    pub fn may(&self) -> Result<&Settings, Skip> {
        self.may
            .as_ref()
            .map_err(|_| Skip("the may instance can't be read"))
    }

    pub fn store(&self) -> Result<&Health, Skip> {
        self.store
            .as_ref()
            .map_err(|_| Skip("the store can't be opened"))
    }

    /// The name of the service that notices go to.
    pub fn hook_name(&self) -> Result<&str, Skip> {
        self.encrypt()?;
        match &self.transport {
            Some(Ok(Some(answer))) => Ok(answer.split(':').next().unwrap_or_default()),
            _ => Err(Skip("no transport leads to the hook")),
        }
    }

    /// Its entry in master.cf.
    pub fn hook(&self) -> Result<&Service, Skip> {
        let name = self.hook_name()?;
        self.encrypt()?
            .service(name, "unix")
            .filter(|service| service.command == "pipe")
            .ok_or(Skip("master.cf has no entry for the hook"))
    }

    /// The user of that entry; `None` when it names none.
    pub fn hook_user(&self) -> Result<Option<Result<HookUser, UserError>>, Skip> {
        let Some(value) = self.hook()?.attribute("user") else {
            return Ok(None);
        };
        let (name, group) = value.split_once(':').unwrap_or((value, ""));
        Ok(Some(user::lookup(name).and_then(|user| {
            let group = if group.is_empty() {
                user.gid
            } else {
                user::group(group)?
            };
            Ok(HookUser { user, group })
        })))
    }

    /// The user of the hook, for the checks that need one that exists.
    pub fn good_hook_user(&self) -> Result<HookUser, Skip> {
        match self.hook_user()? {
            Some(Ok(user)) => Ok(user),
            _ => Err(Skip("the hook has no user that exists")),
        }
    }

    /// The program of the hook.
    pub fn program(&self) -> Result<PathBuf, Skip> {
        let argv = self.hook()?.argv().unwrap_or_default();
        let program = argv.first().filter(|program| !program.is_empty());
        program
            .map(PathBuf::from)
            .ok_or(Skip("the hook's entry names no program"))
    }
}
