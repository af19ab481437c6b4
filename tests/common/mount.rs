//! A small file system in memory, for what must be full, or elsewhere. Apart because tests
//! without a Stage need it, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory on a directory; unmounted in the end.
pub struct Small(PathBuf);

impl Small {
    /// Mounts one of so many KiB on a directory, which is made. `None`, and a word about it, where mounting is not
    /// permitted.
    pub fn mount(directory: &Path, kib: u32) -> Option<Self> {
        fs::create_dir_all(directory).expect("a directory");
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={kib}k,mode=0755"),
                "tmpfs",
            ])
            .arg(directory)
            .output()
            .expect("mount runs");
        if !output.status.success() {
            eprintln!(
                "skipped: mounting a tmpfs is not permitted here: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            return None;
        }
        Some(Self(directory.to_owned()))
    }

    /// Leaves not an octet free.
    pub fn fill(&self) {
        let filler = self.0.join("filler");
        let mut file = fs::File::create(&filler).expect("a file");
        let page = vec![0; 4096];
        while std::io::Write::write_all(&mut file, &page).is_ok() {}
    }

    /// Frees it again.
    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("a file");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Even while a process is still about to end.
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(&self.0).status().ok();
    }
}
