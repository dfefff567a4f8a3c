//! Content of configs and secrets that compose writes into a container, because the project's file has it inline.
//!
//! Compose of version 2 puts what `content:` or `environment:` says into the container's writable layer, between its
//! creation and its first start; what `file:` says is a mount. A container that is made again has the mounts, and would
//! be without the rest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::json::{list, object, text};

/// Where secrets are that say no other place.
const SECRETS: &str = "/run/secrets/";
/// Longest project file that is read; real ones have some kilobytes.
const FILE_MAX: u64 = 4 << 20;

/// Paths at which a service gets inline content, by the project's files together; none where no file can be read.
///
/// A file that cannot be read or makes no sense is left out: what is in the container is looked for as well, so a path
/// too few makes a refusal less clear and nothing else.
pub(super) fn paths<'a>(
    files: impl IntoIterator<Item = &'a Path>,
    service: &str,
) -> BTreeSet<String> {
    let documents: Vec<Value> = files.into_iter().filter_map(read).collect();
    of_documents(&documents, service)
}

fn read(file: &Path) -> Option<Value> {
    // A pipe or a device would be waited for.
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return None;
    }
    let mut text = String::new();
    let mut limited = File::open(file).ok()?.take(FILE_MAX);
    limited.read_to_string(&mut text).ok()?;
    serde_saphyr::from_str(&text).ok()
}

fn of_documents(documents: &[Value], service: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (kind, folder) in [("configs", "/"), ("secrets", SECRETS)] {
        let inline: BTreeSet<&str> = documents
            .iter()
            .flat_map(|document| object(&document[kind]))
            .filter(|(_, definition)| {
                ["content", "environment"]
                    .iter()
                    .any(|source| !definition[*source].is_null())
            })
            .map(|(name, _)| name.as_str())
            .collect();
        let used = documents
            .iter()
            .flat_map(|document| list(&document["services"][service][kind]));
        paths.extend(used.filter_map(|entry| target(entry, &inline, folder)));
    }
    paths
}

/// Where an entry of a service's list is put, if its source is inline: `source`, or `{source, target}`.
fn target(entry: &Value, inline: &BTreeSet<&str>, folder: &str) -> Option<String> {
    let source = entry.as_str().unwrap_or(text(&entry["source"]));
    if !inline.contains(source) {
        return None;
    }
    let target = text(&entry["target"]);
    Some(match target {
        "" => format!("{folder}{source}"),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{folder}{relative}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "\
services:
  web:
    image: app
    configs:
      - plain
      - {source: placed, target: /etc/app/placed.conf}
      - {source: on_disk, target: /etc/on-disk.conf}
      - source: relative
        target: etc/relative.conf
    secrets:
      - from_env
      - {source: named, target: token, mode: 0440}
      - on_disk
  other:
    configs: [plain, only_of_other]
configs:
  plain: {content: 'x=1'}
  placed:
    content: |
      a: ${B}
  relative: {environment: RELATIVE}
  on_disk: {file: ./on-disk.conf}
  only_of_other: {content: y}
secrets:
  from_env: {environment: TOKEN}
  named: {environment: TOKEN}
  on_disk: {file: ./secret}
";

    fn documents(texts: &[&str]) -> Vec<Value> {
        texts
            .iter()
            .map(|text| serde_saphyr::from_str(text).expect("YAML"))
            .collect()
    }

    #[test]
    fn only_what_is_inline_and_used_by_the_service_is_found_where_compose_puts_it() {
        let found = of_documents(&documents(&[PROJECT]), "web");
        let expect = [
            "/etc/app/placed.conf",
            "/etc/relative.conf",
            "/plain",
            "/run/secrets/from_env",
            "/run/secrets/token",
        ];
        assert_eq!(found, expect.map(str::to_owned).into());
        assert!(of_documents(&documents(&[PROJECT]), "nobody").is_empty());
    }

    #[test]
    fn the_files_of_a_project_are_read_together() {
        let base = "services: {web: {image: app, configs: [late]}}\n";
        let more = "configs: {late: {content: x}}\nservices: {web: {secrets: [key]}}\nsecrets: {key: {environment: KEY}}\n";
        let found = of_documents(&documents(&[base, more]), "web");
        assert_eq!(
            found,
            ["/late", "/run/secrets/key"].map(str::to_owned).into()
        );
    }

    #[test]
    fn a_file_that_makes_no_sense_says_nothing_and_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let good = file("good.yml", PROJECT);
        let bad = file("bad.yml", "services: [web: {");
        let missing = folder.path().join("missing.yml");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a pipe");
        let all = [&bad, &missing, &pipe, &good];
        let found = paths(all.map(std::path::PathBuf::as_path), "web");
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(paths([bad.as_path()], "web").is_empty());
    }
}
