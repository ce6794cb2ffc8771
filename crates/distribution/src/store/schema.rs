//! The index's tables.

use dozen_ledger::Migration;

/// What a blob is held by are rows: it goes when the last of them has.
pub(crate) const MIGRATIONS: [Migration; 4] = [
    Migration(
        "
    CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

    -- The file is named by the digest and by the upload that brought it. Without an upload the file is lost: nobody has
    -- the blob until it is uploaded again, and what names it then is whole again.
    CREATE TABLE blobs (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        size_bytes INTEGER NOT NULL,
        upload TEXT
    ) STRICT;

    -- A repository has a blob. Seconds since 1970 of when it was last uploaded, mounted or asked for.
    CREATE TABLE repository_blobs (
        repository INTEGER NOT NULL REFERENCES repositories (id),
        blob INTEGER NOT NULL REFERENCES blobs (id),
        seen_at INTEGER NOT NULL,
        PRIMARY KEY (repository, blob)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX repository_blobs_by_blob ON repository_blobs (blob);

    CREATE TABLE manifests (
        id INTEGER PRIMARY KEY,
        repository INTEGER NOT NULL REFERENCES repositories (id),
        digest TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        subject TEXT,
        artifact_type TEXT,
        annotations TEXT NOT NULL,
        content BLOB NOT NULL,
        UNIQUE (repository, digest)
    ) STRICT;
    CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;

    -- What a manifest names.
    CREATE TABLE manifest_blobs (
        manifest INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
        repository INTEGER NOT NULL REFERENCES repositories (id),
        blob INTEGER NOT NULL REFERENCES blobs (id),
        PRIMARY KEY (manifest, blob)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX manifest_blobs_by_blob ON manifest_blobs (blob, repository);

    CREATE TABLE tags (
        repository INTEGER NOT NULL REFERENCES repositories (id),
        name TEXT NOT NULL,
        manifest INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
        PRIMARY KEY (repository, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tags_by_manifest ON tags (manifest);

    CREATE TABLE uploads (
        id TEXT PRIMARY KEY,
        repository TEXT NOT NULL,
        algorithm TEXT NOT NULL,
        boot TEXT
    ) STRICT, WITHOUT ROWID;
    ",
    ),
    // Times for rules of retention, in seconds since 1970. Of what was there before nobody knows them: it begins anew.
    Migration(
        "
    -- When it was last pushed, or lost a tag.
    ALTER TABLE manifests ADD COLUMN named_at INTEGER NOT NULL DEFAULT 0;
    -- About when it was last pulled: 0 is never.
    ALTER TABLE manifests ADD COLUMN pulled_at INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tags ADD COLUMN pushed_at INTEGER NOT NULL DEFAULT 0;
    UPDATE manifests SET named_at = unixepoch(), pulled_at = unixepoch();
    UPDATE tags SET pushed_at = unixepoch();
    ",
    ),
    // Of an upstream: what it names comes when somebody asks for it, and may not be there yet.
    Migration("ALTER TABLE manifests ADD COLUMN is_cached INTEGER NOT NULL DEFAULT 0;"),
    Migration(
        "
    -- Files that are nobody's, and stay: something else was found in them than their digest says, or they were not there
    -- when they were looked for, and may come back.
    CREATE TABLE aside (
        digest TEXT NOT NULL,
        upload TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        is_damaged INTEGER NOT NULL,
        found_at INTEGER NOT NULL,
        PRIMARY KEY (digest, upload)
    ) STRICT, WITHOUT ROWID;

    -- Of this machine alone: the round in which all blobs are read. The last one that was; without it, the round is over.
    CREATE TABLE scrub (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        begun_at INTEGER NOT NULL,
        after INTEGER
    ) STRICT;
    ",
    ),
];
