//! The static test program, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the static test program (`tests/app`), built on first use into `target/testapp`.
///
/// cargo itself decides whether it is fresh and locks the folder, so test processes may ask at the same time.
///
/// # Panics
/// When it does not build.
pub fn app_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let kit = Path::new(env!("CARGO_MANIFEST_DIR"));
    kit.ancestors()
        .nth(2)
        .expect("tests/kit is two folders deep")
        .to_owned()
}

/// Where cargo puts what it builds; a relative setting counts from the root.
pub(crate) fn target_dir() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(set)
}

fn build() -> PathBuf {
    let root = workspace();
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = target_dir().join("testapp");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--locked"])
        .args([
            "--package",
            "fleet-testapp",
            "--profile",
            "dist",
            "--target",
            &target,
        ])
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(&root);
    let output = command.output().expect("cargo can be run");
    assert!(
        output.status.success(),
        "the static test program does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder.join(target).join("dist/fleet-testapp")
}
