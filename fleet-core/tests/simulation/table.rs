//! The table "killed in step … → after restart …" that the README shows is what the simulator finds.

use std::path::Path;

use fleet_core::testing::recovery_table;

#[test]
fn the_table_of_recoveries_is_what_happens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/recovery_table.md");
    let found = recovery_table();
    if std::env::var_os("FLEET_BLESS").is_some() {
        std::fs::write(&path, &found).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(
        found, golden,
        "run again with FLEET_BLESS=1 if the new table is right"
    );
}
