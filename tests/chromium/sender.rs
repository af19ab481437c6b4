//! A sender at a real browser in which JavaScript is switched off: clicks, keys, and what is to be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headless_chrome::protocol::cdp::{DOM, Emulation, Page};
use headless_chrome::{Browser, Element, Tab};

use super::{browser, resize};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sender at a browser without JavaScript.
pub struct Sender {
    pub tab: Arc<Tab>,
    _browser: Browser,
    _profile: tempfile::TempDir,
}

impl Sender {
    pub fn new() -> Option<Self> {
        Self::speaking("en-GB,en;q=0.9")
    }

    /// Whose browser asks for pages in these languages.
    pub fn speaking(languages: &str) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a directory");
        let browser = browser(profile.path())?;
        let tab = browser.new_tab().expect("a tab");
        tab.set_default_timeout(PATIENCE);
        tab.call_method(Emulation::SetScriptExecutionDisabled { value: true })
            .expect("no JavaScript");
        tab.call_method(Emulation::SetFocusEmulationEnabled { enabled: true })
            .expect("the focus");
        tab.set_user_agent("Mozilla/5.0 (X11; Linux x86_64)", Some(languages), None)
            .expect("a language");
        Some(Self {
            tab,
            _browser: browser,
            _profile: profile,
        })
    }

    pub fn open(&self, url: &str) {
        self.tab
            .navigate_to(url)
            .and_then(Tab::wait_until_navigated)
            .expect("a page");
    }

    /// The HTML of an element. (The crate's own functions for it, as for clicks and the focus, need JavaScript.)
    pub fn reads(&self, selector: &str) -> String {
        let element = self.tab.wait_for_element(selector).expect(selector);
        let html = self.tab.call_method(DOM::GetOuterHTML {
            node_id: None,
            backend_node_id: Some(element.backend_node_id),
            object_id: None,
            include_shadow_dom: None,
        });
        html.expect("HTML").outer_html
    }

    pub fn finds(&self, selector: &str) -> Element<'_> {
        let element = self.tab.wait_for_element(selector).expect(selector);
        let scroll = DOM::ScrollIntoViewIfNeeded {
            node_id: None,
            backend_node_id: Some(element.backend_node_id),
            object_id: None,
            rect: None,
        };
        self.tab.call_method(scroll).expect("it can be seen");
        element
    }

    /// Clicks with the mouse, where the element is on the screen.
    pub fn clicks(&self, selector: &str) {
        let middle = self.finds(selector).get_midpoint().expect("a place");
        self.tab.click_point(middle).expect("a click");
    }

    /// Chooses for all recipients at once, and confirms.
    pub fn decides(&self, action: &str) {
        self.clicks(&format!("label[for=all-{action}]"));
        self.tab
            .wait_for_element(&format!("#all-{action}:checked"))
            .expect("a choice");
        self.clicks("form button[type=submit]");
    }

    /// What the page says after that became of the recipients.
    pub fn is_told(&self, what: &str) {
        let told = self.reads(".recipients");
        assert!(told.contains(what), "{}", self.reads("main"));
    }

    /// Presses keys while an element has the focus.
    pub fn presses(&self, selector: &str, keys: &[&str]) {
        let element = self.finds(selector);
        let focus = DOM::Focus {
            node_id: None,
            backend_node_id: Some(element.backend_node_id),
            object_id: None,
        };
        self.tab.call_method(focus).expect("focus");
        for key in keys {
            self.tab.press_key(key).expect("a key");
        }
    }

    pub fn sees(&self, selector: &str) -> bool {
        self.tab.find_element(selector).is_ok()
    }

    pub fn photographs(&self, name: &str) {
        let Some(directory) = std::env::var_os("SCREENSHOTS").map(PathBuf::from) else {
            return;
        };
        let size = self.size();
        let whole = Page::Viewport {
            x: 0.0,
            y: 0.0,
            width: size.width,
            height: size.height,
            scale: 1.0,
        };
        let png = Page::CaptureScreenshotFormatOption::Png;
        let picture = self
            .tab
            .capture_screenshot(png, None, Some(whole), true)
            .expect("a picture");
        std::fs::write(directory.join(format!("sender-{name}.png")), picture).expect("a file");
    }

    /// Makes the window as wide as a phone, or wider.
    pub fn is_wide(&self, width: u32) {
        resize(&self.tab, width, 800);
    }

    /// Makes the window as high as the page, so that all of it is painted.
    pub fn is_high(&self, width: u32) {
        resize(&self.tab, width, self.size().height as u32);
    }

    fn size(&self) -> DOM::Rect {
        let metrics = self.tab.call_method(Page::GetLayoutMetrics(None));
        metrics.expect("a size").css_content_size
    }

    /// How many pixels the page is wider than the window.
    pub fn overflow(&self) -> f64 {
        let metrics = self.tab.call_method(Page::GetLayoutMetrics(None));
        let metrics = metrics.expect("a size");
        metrics.css_content_size.width - f64::from(metrics.css_layout_viewport.client_width)
    }
}
