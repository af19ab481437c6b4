//! Starts a real Chromium without a window, as root and with nothing to say to the network.
#![allow(dead_code)] // Not every test program uses all of it.

pub mod sender;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headless_chrome::protocol::cdp::Emulation;
use headless_chrome::{Browser, LaunchOptions, Tab};

/// `CHROME`, or /usr/bin/chromium, with a profile of its own. `None` only when NO_BROWSER asks to do without.
pub fn browser(profile: &Path) -> Option<Browser> {
    if std::env::var_os("NO_BROWSER").is_some() {
        eprintln!("NO_BROWSER is set: not tested in a browser");
        return None;
    }
    let program =
        std::env::var_os("CHROME").map_or_else(|| "/usr/bin/chromium".into(), PathBuf::from);
    assert!(
        program.exists(),
        "{} is missing: install the package chromium, or set NO_BROWSER=1",
        program.display()
    );
    let switches = [
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ];
    let options = LaunchOptions::default_builder()
        .path(Some(program))
        .sandbox(false)
        .headless(true)
        .window_size(Some((900, 1000)))
        .user_data_dir(Some(profile.to_owned()))
        .idle_browser_timeout(Duration::from_secs(120))
        .args(switches.iter().map(OsStr::new).collect())
        .build()
        .expect("options");
    Some(Browser::new(options).expect("Chromium starts"))
}

/// Gives the page a window of this size, in pixels.
pub fn resize(tab: &Tab, width: u32, height: u32) {
    tab.call_method(Emulation::SetDeviceMetricsOverride {
        width,
        height,
        device_scale_factor: 1.0,
        mobile: false,
        scale: None,
        screen_width: None,
        screen_height: None,
        position_x: None,
        position_y: None,
        dont_set_visible_size: None,
        screen_orientation: None,
        viewport: None,
        display_feature: None,
        device_posture: None,
    })
    .expect("a size");
}
