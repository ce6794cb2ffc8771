//! What is left half done is undone or finished, and what nothing names goes while everyone goes on.

use bytes::Bytes;

use super::*;
use crate::hasher::{Algorithm, Hasher};
use crate::manifest;

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn digest_of(content: &[u8]) -> Digest {
    Hasher::of(Algorithm::Sha256, content)
}

async fn upload(store: &Arc<Store>, repository: &str, content: &[u8]) -> Result<Digest, Refusal> {
    let digest = digest_of(content);
    let upload = store.begin_upload(&name(repository), Algorithm::Sha256, true).await?;
    let writer = upload.write().await?;
    let writer = store.append(writer, vec![Bytes::copy_from_slice(content)]).await?;
    store.finish(writer, &digest).await?;
    Ok(digest)
}

async fn name_blob(
    store: &Store,
    repository: &str,
    tag: &str,
    digest: &Digest,
    size: usize,
) -> Result<Digest, Refusal> {
    let content = serde_json::json!({
        "schemaVersion": 2, "config": { "mediaType": "c", "digest": digest.as_str(), "size": size }, "layers": [],
        "annotations": { "tag": tag },
    });
    let content = content.to_string().into_bytes();
    let put = PutManifest {
        repository: name(repository),
        digest: digest_of(&content),
        tag: Some(tag.parse().unwrap()),
        manifest: manifest::parse(&content, None).unwrap(),
        content,
        quota_bytes: None,
        is_cached: false,
    };
    let digest = put.digest.clone();
    store.put_manifest(put).await.map(|()| digest)
}

fn no_grace() -> StoreOptions {
    StoreOptions { grace: Duration::ZERO, ..StoreOptions::default() }
}

fn files(root: &Path) -> usize {
    let mut count = 0;
    Directory::open(root).unwrap().for_each_blob(|_| count += 1).unwrap();
    count
}

#[tokio::test]
async fn one_directory_has_one_server() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let error = Store::open(root.path(), StoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::Busy(_)), "{error}");
    assert!(matches!(check(root.path()).await, Err(OpenError::Busy(_))));
    drop(store);
    Store::open(root.path(), StoreOptions::default()).await.unwrap();
}

#[tokio::test]
async fn an_open_upload_goes_on_with_the_next_server() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let begun = store.begin_upload(&name("a"), Algorithm::Sha256, true).await.unwrap();
    let id = begun.id.clone();
    let writer = begun.write().await.unwrap();
    drop(store.append(writer, vec![Bytes::from_static(b"he"), Bytes::from_static(b"ll")]).await.unwrap());
    let unrecorded = store.begin_upload(&name("a"), Algorithm::Sha256, false).await.unwrap();
    drop((begun, store));
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    assert_eq!(store.upload(&name("a"), &unrecorded.id).unwrap_err().kind, Kind::UploadUnknown);
    assert!(!store.directory.upload(&unrecorded.id).exists());
    let found = store.upload(&name("a"), &id).unwrap();
    assert_eq!(found.length(), 4);
    let writer = store.append(found.write().await.unwrap(), vec![Bytes::from_static(b"o")]).await.unwrap();
    store.finish(writer, &digest_of(b"hello")).await.unwrap();
    assert_eq!(store.blob_size(&name("a"), &digest_of(b"hello")).await.unwrap(), 5);
    assert_eq!(store.upload(&name("a"), &id).unwrap_err().kind, Kind::UploadUnknown);
}

#[tokio::test]
async fn an_upload_of_before_the_machine_went_down_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let row = |id: &UploadId, boot: &str| index::UploadRow {
        id: id.clone(),
        repository: name("a"),
        algorithm: Algorithm::Sha256,
        boot: Some(boot.to_owned()),
    };
    let (before, without_file) = (UploadId::random(), UploadId::random());
    store.directory.make_upload(&before).unwrap();
    store.index.record_upload(row(&before, "another boot")).await.unwrap();
    store.index.record_upload(row(&without_file, &boot::id().unwrap())).await.unwrap();
    drop(store);
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    assert_eq!(store.index.uploads().await.unwrap().len(), 0);
    assert_eq!(store.table().len(), 0);
    assert!(!store.directory.upload(&before).exists());
}

#[tokio::test]
async fn a_file_without_a_row_goes_and_a_row_without_a_file_waits_for_another_push() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let digest = upload(&store, "a", b"one").await.unwrap();
    name_blob(&store, "a", "latest", &digest, 3).await.unwrap();
    let blob = store.index.blob(&name("a"), &digest, None).await.unwrap().file;
    let orphan = BlobFile { digest: digest_of(b"other"), upload: UploadId::random() };
    std::fs::write(store.directory.blob(&orphan), b"other").unwrap();
    std::fs::remove_file(store.directory.blob(&blob)).unwrap();
    drop(store);
    let checked = check(root.path()).await.unwrap();
    assert!(checked.problems[0].contains("cannot be read"), "{checked:?}");
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    assert_eq!(files(root.path()), 0);
    // Whoever pushes is told that it is not there, and brings it again; what named it is whole.
    assert_eq!(store.blob_size(&name("a"), &digest).await.unwrap_err().kind, Kind::BlobUnknown);
    assert!(!store.mount(&name("b"), &digest, None).await.unwrap());
    assert_eq!(store.index.contradictions().await.unwrap().len(), 1);
    upload(&store, "a", b"one").await.unwrap();
    drop(store);
    assert_eq!(check(root.path()).await.unwrap(), Checked { blobs: 1, bytes: 3, ..Checked::default() });
}

#[tokio::test]
async fn a_check_finds_what_the_disk_has_changed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let [longer, changed] = [b"longer", b"change"];
    for content in [longer, changed] {
        upload(&store, "a", content).await.unwrap();
    }
    for (content, becomes) in [(longer, &b"longer!"[..]), (changed, b"chance")] {
        let blob = store.index.blob(&name("a"), &digest_of(content), None).await.unwrap().file;
        std::fs::write(store.directory.blob(&blob), becomes).unwrap();
    }
    drop(store);
    let problems = check(root.path()).await.unwrap().problems.join("\n");
    assert!(problems.contains("has 7 bytes, the index says 6") && problems.contains("is damaged"), "{problems}");
}

#[tokio::test]
async fn two_uploads_of_one_blob_are_one_blob() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let uploads = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { upload(&store, "a", b"same").await })
    });
    for uploaded in uploads.collect::<Vec<_>>() {
        uploaded.await.unwrap().unwrap();
    }
    upload(&store, "b", b"same").await.unwrap();
    assert_eq!(files(root.path()), 1);
}

#[tokio::test]
async fn only_what_nothing_names_is_collected() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), no_grace()).await.unwrap();
    let named = upload(&store, "a", b"named").await.unwrap();
    upload(&store, "a", b"nobody's").await.unwrap();
    let manifest = name_blob(&store, "a", "latest", &named, 5).await.unwrap();
    // Another repository has it and names it nowhere.
    assert!(store.mount(&name("b"), &named, Some(&name("a"))).await.unwrap());
    assert_eq!(store.collect().await.unwrap(), Freed { blobs: 1, bytes: 8, uploads: 0 });
    assert_eq!(store.blob_size(&name("b"), &named).await.unwrap_err().kind, Kind::BlobUnknown);
    assert_eq!(store.blob_size(&name("a"), &named).await.unwrap(), 5);
    assert_eq!(store.delete_blob(&name("a"), &named).await.unwrap_err().kind, Kind::BlobInUse);
    let tag = ManifestReference::Tag("latest".parse().unwrap());
    store.delete_manifest(&name("a"), &tag).await.unwrap();
    // Without a tag a manifest is one all the same.
    assert_eq!(store.collect().await.unwrap(), Freed::default());
    store.delete_manifest(&name("a"), &ManifestReference::Digest(manifest)).await.unwrap();
    assert_eq!(store.collect().await.unwrap(), Freed { blobs: 1, bytes: 5, uploads: 0 });
    assert_eq!(files(root.path()), 0);
    let gone = store.index.tags(&name("a"), String::new(), 1).await.unwrap_err();
    assert_eq!(gone.kind, Kind::NameUnknown);
}

#[tokio::test]
async fn what_was_just_pushed_or_asked_for_stays_for_the_grace_time() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let digest = upload(&store, "a", b"one").await.unwrap();
    assert_eq!(store.collect().await.unwrap(), Freed::default());
    let long_ago = index::now() - 100_000;
    let age = |store: &Arc<Store>| {
        let index = store.index.clone();
        async move { index.set_seen(long_ago).await.unwrap() }
    };
    age(&store).await;
    // Who asks whether it is there may be about to name it.
    store.blob_size(&name("a"), &digest).await.unwrap();
    assert_eq!(store.collect().await.unwrap(), Freed::default());
    age(&store).await;
    assert_eq!(store.collect().await.unwrap().blobs, 1);
}

#[tokio::test]
async fn an_idle_upload_is_given_up_and_one_that_is_written_to_is_not() {
    let root = tempfile::tempdir().unwrap();
    let options = StoreOptions { upload_patience: Duration::ZERO, ..StoreOptions::default() };
    let store = Store::open(root.path(), options).await.unwrap();
    let idle = store.begin_upload(&name("a"), Algorithm::Sha256, true).await.unwrap();
    let busy = store.begin_upload(&name("a"), Algorithm::Sha256, true).await.unwrap();
    let writer = busy.write().await.unwrap();
    assert_eq!(store.collect().await.unwrap().uploads, 1);
    assert_eq!(idle.write().await.unwrap_err().kind, Kind::UploadUnknown);
    assert!(store.upload(&name("a"), &busy.id).is_ok());
    drop(writer);
    assert_eq!(store.directory.uploads().unwrap().len(), 1);
}

/// Everybody at once, without a grace time: whatever manifest is taken has its blobs, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_collection_takes_what_a_manifest_has_just_named() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), no_grace()).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let collector = tokio::spawn({
        let store = store.clone();
        async move {
            let mut freed = 0;
            while !*stopped.borrow() {
                freed += store.collect().await.unwrap().blobs;
            }
            freed
        }
    });
    let pushers = (0..4).map(|pusher| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut refused = 0;
            for round in 0..60 {
                // Few blobs, so that all push the same ones, and each is named and forgotten again and again.
                let content = format!("blob {}", (round + pusher) % 3).into_bytes();
                let digest = upload(&store, "a", &content).await.unwrap();
                let tag = format!("t{pusher}");
                match name_blob(&store, "a", &tag, &digest, content.len()).await {
                    Ok(manifest) => {
                        let (blob, size) = store.open_blob(&name("a"), &digest).await.expect("its manifest keeps it");
                        let Content::File(file) = blob else { unreachable!("it lies in a directory") };
                        let mut found = Vec::new();
                        assert_eq!(directory::read_all(&file, |bytes| found.extend_from_slice(bytes)).unwrap(), size);
                        assert_eq!(found, content);
                        if round % 2 == 0 {
                            let _ = store.delete_manifest(&name("a"), &ManifestReference::Digest(manifest)).await;
                        }
                    }
                    Err(refusal) => {
                        assert_eq!(refusal.kind, Kind::ManifestBlobUnknown);
                        refused += 1;
                    }
                }
            }
            refused
        })
    });
    let pushers: Vec<_> = pushers.collect();
    for pusher in pushers {
        let _: i32 = pusher.await.unwrap();
    }
    stop.send(true).unwrap();
    assert!(collector.await.unwrap() > 0, "something was collected meanwhile");
    drop(store);
    assert_eq!(check(root.path()).await.unwrap().problems, [""; 0]);
}

#[tokio::test]
async fn who_comes_later_goes_on_and_who_was_there_fails() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let upload = store.begin_upload(&name("a"), Algorithm::Sha256, true).await.unwrap();
    let mut first = upload.write().await.unwrap();
    let second = tokio::spawn({
        let upload = upload.clone();
        async move { upload.write().await.map(|writer| writer.length()) }
    });
    assert_eq!(first.overtaken().await.kind, Kind::TakenOver);
    let first = store.append(first, vec![Bytes::from_static(b"hello")]).await.unwrap();
    drop(first);
    assert_eq!(second.await.unwrap().unwrap(), 5);
}

/// Of a rule's text, for all repositories.
fn retention(text: &str) -> crate::retention::Retention {
    let text = format!("[[rule]]\nrepositories = [\"**\"]\n{text}");
    crate::retention::Retention::parse(&text, Path::new("rules")).unwrap()
}

#[tokio::test]
async fn rules_take_what_they_say_and_count_from_when_a_tag_was_lost() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), no_grace()).await.unwrap();
    let blob = upload(&store, "a", b"one").await.unwrap();
    let old = name_blob(&store, "a", "moving", &blob, 3).await.unwrap();
    let tag: ManifestReference = "moving".parse().unwrap();
    let times = async |set: &'static str| store.index.set_times(set).await.unwrap();
    let goes = async |text: &str, dry_run| {
        let released = store.retain(&retention(text), dry_run).await.unwrap();
        released.into_iter().map(|one| format!("{}{}", one.repository, one.what)).collect::<Vec<_>>()
    };
    times("UPDATE manifests SET named_at = 1000").await;
    times("UPDATE tags SET pushed_at = 1000").await;
    let rule = "keep-pulled = \"1h\"\nuntagged-after = \"1h\"";
    assert_eq!(goes(rule, true).await, ["a:moving"]);
    // Who pulls it keeps it; it is noted, and not at each time.
    store.manifest(&name("a"), &tag, false).await.unwrap();
    assert_eq!(goes(rule, true).await, ["a:moving"]);
    store.manifest(&name("a"), &tag, true).await.unwrap();
    assert!(goes(rule, true).await.is_empty());
    times("UPDATE manifests SET pulled_at = 0").await;
    // The tag goes to another: the one before has been without since then.
    let content = b"{\"schemaVersion\":2,\"manifests\":[]}".to_vec();
    let put = PutManifest {
        repository: name("a"),
        digest: digest_of(&content),
        tag: Some("moving".parse().unwrap()),
        manifest: manifest::parse(&content, None).unwrap(),
        content,
        quota_bytes: None,
        is_cached: false,
    };
    store.put_manifest(put).await.unwrap();
    let untagged = "untagged-after = \"1h\"";
    assert!(goes(untagged, true).await.is_empty());
    times("UPDATE manifests SET named_at = 1000").await;
    assert_eq!(goes(untagged, true).await, [format!("a@{old}")]);
    // Asking has changed nothing; now it goes, and its blob with the next collection.
    assert_eq!(goes(untagged, false).await, [format!("a@{old}")]);
    assert!(goes(untagged, false).await.is_empty());
    store.collect().await.unwrap();
    assert_eq!(files(root.path()), 0);
    store.manifest(&name("a"), &tag, false).await.unwrap();
}

#[tokio::test]
async fn in_a_store_of_before_there_were_rules_all_times_begin_now() {
    let root = tempfile::tempdir().unwrap();
    let ledger = dozen_ledger::Ledger::open(&root.path().join("index.db"), &schema::MIGRATIONS[..1]).unwrap();
    let digest = digest_of(b"x");
    let rows = format!(
        "INSERT INTO repositories (id, name) VALUES (1, 'a');
         INSERT INTO manifests (id, repository, digest, media_type, size_bytes, annotations, content)
         VALUES (1, 1, '{digest}', '{}', 1, '{{}}', x'78');
         INSERT INTO tags (repository, name, manifest) VALUES (1, 'old', 1);",
        manifest::OCI_MANIFEST
    );
    let written = ledger.write(dozen_ledger::Durability::Power, move |connection| {
        connection.execute_batch(&rows).map_err(dozen_ledger::LedgerError::from)
    });
    written.unwrap();
    drop(ledger);
    let store = Store::open(root.path(), no_grace()).await.unwrap();
    for (rule, count) in [("keep-younger = \"1h\"", 0), ("keep-pulled = \"1h\"", 0), ("keep-tags = [\"x\"]", 1)] {
        let rules = retention(&format!("{rule}\nuntagged-after = \"1h\""));
        assert_eq!(store.retain(&rules, true).await.unwrap().len(), count, "{rule}");
    }
}

#[tokio::test]
async fn what_a_look_at_a_repository_tells_is_short_and_has_its_sizes() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let blob = upload(&store, "a", b"blob").await.unwrap();
    let content = serde_json::json!({
        "schemaVersion": 2, "artifactType": "ä".repeat(100_000),
        "config": { "mediaType": "c", "digest": blob.as_str(), "size": 4 }, "layers": [],
    });
    let content = content.to_string().into_bytes();
    let put = PutManifest {
        repository: name("a"),
        digest: digest_of(&content),
        tag: Some("1".parse().unwrap()),
        manifest: manifest::parse(&content, None).unwrap(),
        content: content.clone(),
        quota_bytes: None,
        is_cached: false,
    };
    store.put_manifest(put).await.unwrap();
    let tags = store.index.tag_summaries(&name("a"), String::new(), 10).await.unwrap();
    assert_eq!(tags[0].artifact_type, Some("ä".repeat(256)));
    let described = store.index.describe(&name("a"), &"1".parse().unwrap()).await.unwrap();
    assert_eq!(described.artifact_type, Some("ä".repeat(256)));
    let summary = store.index.repository_summary(&name("a")).await.unwrap();
    assert_eq!((summary.tags, summary.bytes), (Some(1), Some(4 + content.len() as u64)));
    assert!(summary.pushed_at.is_some());
}

/// Two blobs that a manifest names, and the file of the first.
async fn two_named_blobs(store: &Arc<Store>) -> (Digest, BlobFile) {
    let mut first = None;
    for content in [b"one", b"two"] {
        let digest = upload(store, "a", content).await.unwrap();
        name_blob(store, "a", "latest", &digest, 3).await.unwrap();
        let file = store.index.blob(&name("a"), &digest, None).await.unwrap().file;
        first.get_or_insert((digest, file));
    }
    first.unwrap()
}

/// A round that does not wait.
async fn scrub(store: &Arc<Store>) -> Result<(), Refusal> {
    let metrics = Arc::new(crate::metrics::Metrics::default());
    let mut pace = crate::scrub::Pace::new(u64::MAX, metrics.clone());
    pace.first_pause = Duration::ZERO;
    store.scrub(0, 0, &pace, &metrics).await
}

#[tokio::test]
async fn a_disk_that_is_gone_has_lost_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let (digest, file) = two_named_blobs(&store).await;
    let (blobs, elsewhere) = (root.path().join("blobs"), root.path().join("elsewhere"));
    std::fs::rename(&blobs, &elsewhere).unwrap();
    std::fs::create_dir(&blobs).unwrap();
    assert_eq!(scrub(&store).await.unwrap_err().kind, Kind::StoreUnavailable);
    assert_eq!(store.index.aside().await.unwrap(), []);
    std::fs::remove_dir(&blobs).unwrap();
    std::fs::rename(&elsewhere, &blobs).unwrap();
    scrub(&store).await.unwrap();
    assert_eq!(store.blob_size(&name("a"), &digest).await.unwrap(), 3);
    // One that is not there while the other is, is lost.
    std::fs::remove_file(store.directory.blob(&file)).unwrap();
    scrub(&store).await.unwrap();
    assert_eq!(store.blob_size(&name("a"), &digest).await.unwrap_err().kind, Kind::BlobUnknown);
}

#[tokio::test]
async fn what_was_set_aside_and_is_right_is_given_again_or_goes() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), StoreOptions::default()).await.unwrap();
    let (digest, file) = two_named_blobs(&store).await;
    for comes_again in [false, true] {
        let path = store.directory.blob(&file);
        std::fs::remove_file(&path).unwrap();
        scrub(&store).await.unwrap();
        assert_eq!(store.index.aside().await.unwrap().len(), 1);
        if comes_again {
            upload(&store, "a", b"one").await.unwrap();
        }
        std::fs::write(&path, b"one").unwrap();
        scrub(&store).await.unwrap();
        assert_eq!(store.index.aside().await.unwrap(), []);
        assert_eq!(store.blob_size(&name("a"), &digest).await.unwrap(), 3);
        assert_eq!((path.exists(), files(root.path())), (!comes_again, 2));
    }
    drop(store);
    assert_eq!(check(root.path()).await.unwrap(), Checked { blobs: 2, bytes: 6, ..Checked::default() });
}
