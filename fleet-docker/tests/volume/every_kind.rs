//! A volume with every kind of entry comes back exactly, and `tar` alone can do it too.

use std::os::unix::net::UnixListener;
use std::path::Path;

use fleet_core::ports::{NoProgress, SnapshotStore};
use fleet_docker::volume::PreCopy;

use crate::support::{Place, assert_same_portrait, assert_same_trees, id, portrait, sh};

/// Fills a folder with every kind of entry there is.
pub(crate) fn make_every_kind(volume: &Path) {
    sh(
        volume,
        r#"
        echo text > file; : > empty; mkdir empty-folder
        head -c 300000 /dev/urandom > random
        echo caps > caps; setcap cap_net_raw,cap_net_bind_service+ep caps
        echo suid > suid; chown 123:456 suid; chmod 6755 suid
        mkdir sticky; chmod 1777 sticky; mkdir setgid; chown 5:6 setgid; chmod 2775 setgid
        echo big-owner > big-owner; chown 3000000:4294967294 big-owner
        echo old > old; touch -d '1901-12-14 01:02:03.123456789' old
        echo older > older; touch -d '1969-12-31 23:59:59.5' older
        echo future > future; touch -d '2242-03-16 12:56:32.987654321' future
        echo far > far; touch -d '@11000000000.25' far
        mkdir dated; touch -d '2001-02-03 04:05:06.7' dated
        ln file hard-a; mkdir links; ln random links/hard-b; ln file links/hard-c
        ln -s /etc/passwd absolute; ln -s nowhere dangling; ln -s loop loop; ln -s empty-folder to-folder
        ln -s "$(head -c 300 /dev/zero | tr '\0' l)" long-target || true
        ln -s "$(printf 'a/%.0s' {1..90})" long-target2; chown -h 77:88 dangling; touch -h -d 1999-01-01 dangling
        mkfifo -m 620 pipe; mknod null c 1 3; mknod -m 640 disk b 7 200; chown 9:10 disk
        ln -P dangling links/dangling-b; ln -P absolute links/absolute-b; ln pipe links/pipe-b; ln disk links/disk-b
        setfattr -n user.note -v 'a value' file; setfattr -n user.empty empty
        setfattr -n 'user.odd=na%me' -v 0x00ff0a3d file; setfattr -n trusted.admin -v x empty-folder
        setfattr -h -n trusted.link -v y absolute; setfattr -n trusted.pipe -v z pipe
        setfattr -n user.large -v 0x$(head -c 1500 /dev/urandom | od -An -tx1 | tr -d ' \n') random
        echo acl > acl; setfacl -m u:1001:rwx,g:1002:r,m::rw acl
        mkdir acl-folder; setfacl -m u:1001:rwx acl-folder; setfacl -d -m u:1003:rx,g::- acl-folder
        echo inherits > acl-folder/inherits
        truncate -s 40M huge; printf end | dd of=huge bs=1 seek=41000000 conv=notrunc status=none
        truncate -s 1M hole; truncate -s 5000 hole-odd
        printf start > middle; truncate -s 3M middle; printf x | dd of=middle bs=1 seek=2000000 conv=notrunc status=none
        : > "$(printf 'latin-\xe9\xff')"; : > "$(printf 'new\nline')"; : > "$(printf 'tab\ttick'\')"; echo p > '100%25'
        : > "$(printf 'n%.0s' {1..255})"; : > "$(printf 'ü%.0s' {1..127})"
        p=.; for i in {1..40}; do p=$p/$(printf "deep$i-%.0s" {1..12}); done
        (for d in ${p//\// }; do mkdir -p "$d"; cd "$d"; done; echo deep > leaf; ln leaf leaf2)
        (for i in {1..200}; do mkdir d; cd d; echo $i > f; done)
        for i in {1..300}; do echo $i > empty-folder/../sticky/f$i; done
        chown 11:12 .; chmod 2751 .; setfattr -n user.root -v r .; setfacl -d -m u:1005:rwx .; touch -d '2010-10-10 10:10:10.1' .
        "#,
    );
}

pub(crate) fn wreck(volume: &Path) {
    sh(
        volume,
        r#"
        echo changed > file; rm caps; echo new > caps; chmod 777 suid; chown 1:1 sticky
        rm -r dated; echo 'now a file' > dated; rm pipe; mkdir pipe; echo x > pipe/y
        rm absolute; ln -s /tmp absolute; setfattr -x user.empty empty; setfattr -n user.extra -v 1 random
        setfacl -b acl-folder; rm links/hard-b; cp random links/hard-b; rm null; mknod null c 1 5
        rm -r sticky; echo added > added; mkdir -p added-folder/x; : > huge; echo full > hole
        chmod 700 .; chown 0:0 .; setfacl -k .; setfattr -x user.root .; rm -r d
        "#,
    );
}

#[tokio::test]
async fn every_kind_of_entry_comes_back_from_one_pass() {
    let place = Place::forced(PreCopy::Never);
    let volume = place.volume();
    make_every_kind(&volume);
    let socket = UnixListener::bind(volume.join("socket")).unwrap();
    let copy = place.dir.path().join("copy");
    sh(&volume, &format!("rsync -aHAXS ./ {}/", copy.display()));
    let (before, blocks) = (portrait(&volume), sh(&volume, "du -s . | cut -f1"));
    let info = place.take(1).await.unwrap();
    assert!(
        info.volumes[0].archive_bytes < 2 << 20,
        "holes were stored: {info:?}"
    );
    drop(socket);
    wreck(&volume);
    let differs = place
        .store
        .differs(&id(1), &[place.source()])
        .await
        .unwrap();
    assert_eq!(differs.len(), 1);
    place.restore(1).await.unwrap();
    assert_same_portrait(&before, &portrait(&volume));
    assert_same_trees(&copy, &volume);
    let after: u64 = sh(&volume, "du -s . | cut -f1").trim().parse().unwrap();
    let blocks: u64 = blocks.trim().parse().unwrap();
    assert!(
        after <= blocks + 64,
        "holes were filled: {blocks} then {after} KiB"
    );
}

#[tokio::test]
async fn every_kind_of_entry_comes_back_from_two_passes() {
    let place = Place::forced(PreCopy::Always);
    let volume = place.volume();
    make_every_kind(&volume);
    place
        .store
        .pre_copy(&place.request(1), &NoProgress)
        .await
        .unwrap();
    wreck(&volume);
    let before = portrait(&volume);
    let info = place.take(1).await.unwrap();
    let dir = place.snapshots().join("web").join(id(1).to_string());
    assert!(dir.join("data.delta.tar.zst").exists(), "{info:?}");
    sh(&volume, "find . -mindepth 1 -delete; echo rest > rest");
    place.restore(1).await.unwrap();
    assert_same_portrait(&before, &portrait(&volume));
    assert_eq!(place.store.verify(&id(1)).await.unwrap(), info);
}

/// Larger than a fixed field of `tar` can say; nearly all of it is a hole.
#[tokio::test]
async fn a_file_over_eight_gibibytes_comes_back() {
    let place = Place::new();
    let volume = place.volume();
    sh(
        &volume,
        "truncate -s 9G huge; printf end | dd of=huge bs=1 seek=9663676000 conv=notrunc status=none; printf start > s",
    );
    let before = portrait(&volume);
    place.take(1).await.unwrap();
    sh(&volume, "rm huge");
    place.restore(1).await.unwrap();
    assert_same_portrait(&before, &portrait(&volume));
    assert_eq!(sh(&volume, "tail -c +9663676001 huge | head -c 3"), "end");
    let snapshot = place.snapshots().join("web").join(id(1).to_string());
    let tar = "mkdir t; zstd -dqc data.tar.zst | tar -x -C t; stat -c '%s %b' t/huge; tail -c +9663676001 t/huge | head -c 3";
    let seen = sh(&snapshot, tar);
    assert!(seen.starts_with("9663676416 8\nend"), "{seen}");
}
