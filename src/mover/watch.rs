//! When sweep, census and retention run, and messages without a notice are looked at: threads of their own, so that none
//! that takes long keeps another waiting. All follow a reload of the configuration at once.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{error, info};

use super::MoveError;
use super::census::{Census, Go};
use super::engine::{Engine, Pair};
use super::retention;
use super::sweep::Sweep;
use crate::case::store::Store;
use crate::config::Config;
use crate::postfix::QueueId;

/// Between two looks at what is to be kept no longer.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Before the instances are asked again.
const AFTER_ERROR: Duration = Duration::from_secs(60);

/// Before what could not be judged is looked at again; then after twice that time, and so on.
const SOON: Duration = Duration::from_secs(3);
/// For so long after the hook got no judgement it may record what it asked about.
const RECORDING: Duration = Duration::from_secs(15);
/// Between two looks whether there is such a thing.
const TICK: Duration = Duration::from_secs(1);

/// Looks after what is in the queue of the encrypt instance, for as long as the process lives.
pub struct Watch {
    store: Arc<Store>,
    engine: Arc<Engine>,
    config: Mutex<Arc<Config>>,
    reloaded: Condvar,
}

impl Watch {
    /// Begins to look, after a first pause; and to forget, at once.
    pub fn start(store: Arc<Store>, engine: Arc<Engine>, config: Config) -> Arc<Self> {
        let watch = Arc::new(Self {
            store,
            engine,
            config: Mutex::new(Arc::new(config)),
            reloaded: Condvar::new(),
        });
        let sweeping = Arc::clone(&watch);
        thread::spawn(move || sweeping.sweep());
        let counting = Arc::clone(&watch);
        thread::spawn(move || counting.census());
        let looking = Arc::clone(&watch);
        thread::spawn(move || looking.look_at_early());
        let forgetting = Arc::clone(&watch);
        thread::spawn(move || forgetting.forget());
        watch
    }

    /// Follows another configuration from now on.
    pub fn reload(&self, config: Config) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.reloaded.notify_all();
    }

    /// Waits until `pause` has passed since `since`, however often it changes meanwhile; `None` is for ever.
    fn wait(&self, since: Instant, pause: fn(&Config) -> Option<Duration>) -> Arc<Config> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = pause(&config).map(|pause| pause.saturating_sub(since.elapsed()));
            config = match left {
                Some(Duration::ZERO) => return Arc::clone(&config),
                Some(left) => {
                    let waited = self.reloaded.wait_timeout(config, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .reloaded
                    .wait(config)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn sweep(&self) {
        let mut sweep = Sweep::new(Arc::clone(&self.store), Arc::clone(&self.engine));
        // The first one at once: what nobody could judge while no mover ran waits for it.
        let mut config = self.wait(Instant::now(), |_| Some(Duration::ZERO));
        let mut soon = SOON;
        loop {
            sweep
                .run(&config)
                .unwrap_or_else(|error| error!("{error}; the sweep will begin again"));
            let owes = sweep.owes_judgement();
            config = self.until_next_sweep(soon, owes);
            soon = if owes {
                (soon * 2).min(between_sweeps(&config))
            } else {
                SOON
            };
        }
    }

    /// Waits for the next sweep. While something is not judged it comes soon.
    fn until_next_sweep(&self, soon: Duration, owes: bool) -> Arc<Config> {
        let since = Instant::now();
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let recorded = self
                .engine
                .owed_judgement()
                .is_some_and(|ago| ago < RECORDING);
            let usual = between_sweeps(&config);
            let pause = if owes || recorded {
                soon.min(usual)
            } else {
                usual
            };
            let left = pause.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Arc::clone(&config);
            }
            let waited = self.reloaded.wait_timeout(config, left.min(TICK));
            config = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn census(&self) {
        // The first one soon: notices may have been lost while no mover ran.
        let mut pause: fn(&Config) -> Option<Duration> =
            |config| between_censuses(config).map(|_| between_sweeps(config));
        loop {
            let config = self.wait(Instant::now(), pause);
            pause = between_censuses;
            let result = self
                .engine
                .pair()
                .map_err(Into::into)
                .and_then(|pair| self.census_of(&pair, &config).run(&mut |_| Go::On));
            match result {
                Ok(summary) => info!("{summary}"),
                Err(error) => error!("{error}; the next census will look again"),
            }
        }
    }

    /// Looks at messages that were deferred without a notice, perhaps. See [`super::lookout`], `early`.
    fn look_at_early(&self) {
        let pair = loop {
            match self.engine.pair() {
                Ok(pair) => break pair,
                Err(error) => {
                    error!(
                        "messages without a notice are not looked for yet: {error}; next try in {} s",
                        AFTER_ERROR.as_secs()
                    );
                    thread::sleep(AFTER_ERROR);
                }
            }
        };
        for id in self.engine.lookout().early(&pair.encrypt) {
            let config = Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner));
            match self.look_at(&id, &config) {
                Ok(true) => info!("{id}: deferred at the turn of a second, without a notice"),
                Ok(false) => {}
                Err(error) => error!("{error}; the next notice or census will tell of it"),
            }
        }
    }

    /// Looks at one message. Whether there is something to be told of.
    fn look_at(&self, id: &QueueId, config: &Config) -> Result<bool, MoveError> {
        let pair = self.engine.pair()?;
        Ok(self.census_of(&pair, config).look_at(id)?.recipients > 0)
    }

    fn census_of<'a>(&'a self, pair: &'a Pair, config: &'a Config) -> Census<'a> {
        Census {
            store: &self.store,
            instance: &pair.encrypt,
            ways: self.engine.ways(),
            may: &pair.may,
            config,
            dry_run: false,
        }
    }

    fn forget(&self) {
        let mut pause: fn(&Config) -> Option<Duration> = |_| Some(Duration::ZERO);
        loop {
            let config = self.wait(Instant::now(), pause);
            pause = |_| Some(FORGET_EVERY);
            retention::forget(&config, &self.store)
                .unwrap_or_else(|error| error!("retention: {error}; next try in an hour"));
        }
    }
}

fn between_sweeps(config: &Config) -> Duration {
    Duration::from_secs(config.sweep.seconds.into())
}

fn between_censuses(config: &Config) -> Option<Duration> {
    let minutes = u64::from(config.sweep.census_minutes);
    (minutes > 0).then(|| Duration::from_secs(minutes * 60))
}
