//! Programs under test, put where any user can run them: the build directory may be closed to others.

use std::fs;
use std::path::Path;
use std::process::Command;

/// As a link where possible, and else by another process: a file that this one has just written can't be run while a child
/// of another thread still has it open.
pub fn install(program: impl AsRef<Path>, to: &Path) {
    if fs::hard_link(&program, to).is_err() {
        let copied = Command::new("cp").arg(program.as_ref()).arg(to).status();
        assert!(copied.expect("cp runs").success(), "{}", to.display());
    }
}
