//! Headers that lie: about sizes, about what follows, about whose and when.

use super::forge::{Forge, record};
use super::*;

#[test]
fn a_size_that_is_not_the_datas() {
    let layer = |size: u64, data: &[u8]| Forge::new().header(|header| header.set_size(size)).data(data);
    refuses(&layer(2000, b"short").end(), "it is cut short");
    refuses(&layer(1 << 30, b"short").end(), "it is cut short");
    refuses(&layer(1 << 40, b"short").end(), "far more than its archive explains");
    refuses(&layer(5, &[b'x'; 1024]).end(), "a header's checksum is wrong");
    // Data of one entry that is another's header is data.
    let inner = Forge::new().header(|header| header.set_path("inner").unwrap()).0;
    let cell = contains(&layer(inner.len() as u64, &inner).end());
    assert!(cell.layer().join("x").exists() && !cell.layer().join("inner").exists());
}

#[test]
fn a_size_that_is_no_number() {
    let layer = |field: [u8; 12]| Forge::new().header(|header| header.as_old_mut().size = field).end();
    refuses(&layer(*b"zzzzzzzzzzzz"), "no valid size");
    refuses(&layer(*b"-0000000001\0"), "no valid size");
    refuses(&layer(*b"0000000008 \0"), "no valid size");
    // Base 256: minus one, and more than 64 bits.
    refuses(&layer([0xff; 12]), "");
    let mut large = [0; 12];
    (large[0], large[1]) = (0x80, 1);
    refuses(&layer(large), "no valid size");
    for size in ["-1", "18446744073709551616", "1e3", "0x10", " 1", ""] {
        let layer = Forge::new().pax(&[("size", size.as_bytes())]).header(|_| {});
        refuses(&layer.end(), "a PAX header is malformed");
    }
    refuses(&Forge::new().pax(&[("size", b"18446744073709551615")]).header(|_| {}).end(), "far more than");
}

/// What has no data has none whatever its size says: else the next header would be taken for it.
#[test]
fn what_has_no_data_has_no_size() {
    for kind in [EntryType::Directory, EntryType::Symlink, EntryType::Fifo, EntryType::Char, EntryType::Block] {
        let layer = Forge::new()
            .header(|header| {
                header.set_entry_type(kind);
                header.set_size(1 << 33);
                header.set_link_name("target").unwrap();
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            })
            .header(|header| header.set_path("next").unwrap());
        assert!(contains(&layer.end()).layer().join("next").exists(), "{kind:?}");
    }
}

#[test]
fn sparse_maps_that_overlap_overflow_or_do_not_add_up() {
    let sparse = |size: u64, real_size: u64, pieces: &[(u64, u64)]| {
        let forge = Forge::new().header(|header| {
            header.set_entry_type(EntryType::GNUSparse);
            header.set_size(size);
            let gnu = header.as_gnu_mut().unwrap();
            gnu.set_real_size(real_size);
            for (at, (offset, length)) in pieces.iter().enumerate() {
                gnu.sparse[at].set_offset(*offset);
                gnu.sparse[at].set_length(*length);
            }
        });
        forge.data(&vec![b'd'; size.min(4096) as usize]).end()
    };
    for layer in [
        sparse(8, 100, &[(0, 4), (2, 4)]),
        sparse(8, 100, &[(50, 4), (0, 4)]),
        sparse(4, 100, &[(98, 4)]),
        sparse(8, 100, &[(0, 4)]),
        sparse(2, 100, &[(0, 4)]),
        sparse(4, 2, &[(0, 4)]),
        sparse(4, u64::MAX, &[(u64::MAX - 1, 4)]),
        sparse(4, u64::MAX, &[(4, u64::MAX)]),
    ] {
        refuses(&layer, "the map of a sparse file is wrong");
    }
    // Holes are bounded by themselves.
    refuses(&sparse(4, 1 << 50, &[(1 << 49, 4)]), "holes of more than 17592186044416 bytes");
    let mut endless = Forge::new().header(|header| {
        header.set_entry_type(EntryType::GNUSparse);
        header.as_gnu_mut().unwrap().isextended = [1];
    });
    let mut extension = tar::GnuExtSparseHeader::new();
    for (number, piece) in extension.sparse.iter_mut().enumerate() {
        piece.set_offset(number as u64 + 1);
        piece.set_length(1);
    }
    extension.isextended = [1];
    for _ in 0..4000 {
        endless.0.extend_from_slice(extension.as_bytes());
    }
    refuses(&endless.0, "the map of a sparse file is wrong");
    refuses(&endless.0[..512 * 100], "it is cut short");
}

#[test]
fn pax_records_that_lie() {
    for records in [
        &b"5 path=x\n"[..],
        b"999999 path=x\n",
        b"0 \n",
        b"-1 path=x\n",
        b"18446744073709551616 path=x\n",
        b"4294967296 path=x\n",
        b"3 =",
        b"path=x\n",
        b"11 path=xyz",
        b"9 pathx=",
        b"7 path\n",
        b"\xff\xff path=x\n",
    ] {
        refuses(&Forge::new().special(b'x', records).header(|_| {}).end(), "a PAX header is malformed");
    }
    // A record inside a value is a value.
    let value = [b"v\n".to_vec(), record("path", b"../../smuggled")].concat();
    let layer = Forge::new().pax(&[("SCHILY.xattr.user.a", &value), ("comment", &value)]).header(|_| {}).end();
    assert!(contains(&layer).layer().join("x").exists());
}

#[test]
fn descriptions_that_are_bombs() {
    let large = vec![b'n'; 2 << 20];
    for kind in [b'L', b'K', b'x', b'g'] {
        refuses(&Forge::new().special(kind, &large).header(|_| {}).end(), "larger than 1 MiB");
        // Nothing is set aside for what is only said.
        let claimed = Forge::new().header(|header| {
            header.set_entry_type(EntryType::new(kind));
            header.set_size(1 << 62);
        });
        refuses(&claimed.end(), "larger than 1 MiB");
        let alone = Forge::new().special(kind, b"6 a=b\n").end();
        if kind == b'g' {
            contains(&alone);
        } else {
            refuses(&alone, "it ends after the description of an entry");
        }
    }
    // Thousands before one entry: the last counts, and each is forgotten for the next.
    let mut many = Forge::new();
    let global = record("path", b"../../global");
    for number in 0..5000 {
        let name = format!("n{number}");
        many = many.special(b'L', name.as_bytes()).pax(&[("comment", name.as_bytes())]).special(b'g', &global);
    }
    assert!(contains(&many.header(|_| {}).end()).layer().join("n4999").exists());
}

#[test]
fn owners_and_times_out_of_range() {
    let owner = |change: fn(&mut tar::Header)| Forge::new().header(change).end();
    refuses(&owner(|header| header.set_uid(1 << 32)), "has no valid owner");
    refuses(&owner(|header| header.set_gid(1 << 32)), "has no valid group");
    // The last number means "as it is" to chown(2): the file would be root's.
    refuses(&owner(|header| header.set_uid(u64::from(u32::MAX))), "has no valid owner");
    refuses(&owner(|header| header.as_old_mut().mode = *b"zzzzzzz\0"), "has no valid mode");
    for (key, said) in [("uid", "has no valid owner"), ("gid", "has no valid group")] {
        for value in ["4294967295", "4294967296", "18446744073709551615"] {
            refuses(&Forge::new().pax(&[(key, value.as_bytes())]).header(|_| {}).end(), said);
        }
        refuses(&Forge::new().pax(&[(key, b"-1")]).header(|_| {}).end(), "a PAX header is malformed");
    }
    for time in ["99999999999999999999", "nan", "1.-5", "-"] {
        refuses(&Forge::new().pax(&[("mtime", time.as_bytes())]).header(|_| {}).end(), "a PAX header is malformed");
    }
    // What 64 bits hold is a time, which the file system brings into its own range.
    for time in ["9223372036854775807.999999999", "-9223372036854775807", "-0.000000001"] {
        contains(&Forge::new().pax(&[("mtime", time.as_bytes())]).header(|_| {}).end());
        let directory = |header: &mut tar::Header| header.set_entry_type(EntryType::Directory);
        contains(&Forge::new().pax(&[("mtime", time.as_bytes())]).header(directory).end());
    }
    contains(&owner(|header| header.set_mtime(u64::MAX)));
}

#[test]
fn kinds_that_nobody_knows() {
    for kind in [b'A', b'D', b'M', b'N', b'V', b'X', b'Z', 0xff] {
        refuses(&Forge::new().header(|header| header.set_entry_type(EntryType::new(kind))).end(), "");
    }
}

/// What stands behind the end of an archive is no part of it.
#[test]
fn nothing_hides_behind_the_end() {
    let mut layer = archive(&[file("a", "x")]);
    layer.extend(archive(&[file("../behind", "x"), file("behind", "x")]));
    let cell = contains(&layer);
    assert!(cell.layer().join("a").exists() && !cell.layer().join("behind").exists());
}
