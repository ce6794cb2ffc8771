//! A bill of materials: the packages of an image as an SPDX document (spdx.github.io/spdx-spec/v2.3, in its JSON form).

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::packages::{Inventory, Manager, Package, Release};

/// What stands in a statement for this kind of document (in-toto attestation, "SPDX predicate").
pub const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// What is not said.
const NOTHING: &str = "NOASSERTION";
/// The element that stands for the image.
const IMAGE: &str = "SPDXRef-Image";

/// The document of an image by this name. The same packages at the same time give the same document.
pub fn document(inventory: &Inventory, image: &str, created: Timestamp) -> Value {
    let packages: Vec<Value> = inventory.packages.iter().map(|package| element(package, &inventory.release)).collect();
    let contains = packages.iter().map(|package| {
        json!({
            "spdxElementId": IMAGE,
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": package["SPDXID"],
        })
    });
    let describes = json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": IMAGE,
    });
    let relationships: Vec<Value> = std::iter::once(describes).chain(contains).collect();
    let of_image = json!({
        "name": image,
        "SPDXID": IMAGE,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
    });
    let packages: Vec<Value> = std::iter::once(of_image).chain(packages).collect();
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "creationInfo": {
            // Without fractions ("6.9 Created field").
            "created": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "creators": [format!("Tool: dozen-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    });
    document["documentNamespace"] = json!(namespace(&document));
    document
}

fn element(package: &Package, release: &Release) -> Value {
    let url = package.url(release);
    let mut element = json!({
        "name": package.name,
        "SPDXID": identifier(package, &url),
        "versionInfo": package.version,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "licenseConcluded": NOTHING,
        // The packagers' words are no expression of SPDX's.
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
        "sourceInfo": format!("found by {}: {}", manager(package.manager), package.found_in),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": url,
        }],
    });
    if let Some(license) = &package.license {
        element["licenseComments"] = json!(license);
    }
    element
}

fn manager(manager: Manager) -> &'static str {
    match manager {
        Manager::Debian => "dpkg",
        Manager::Alpine => "apk",
        Manager::Python => "Python's metadata",
        Manager::Node => "package.json",
    }
}

/// Letters, digits, dots and dashes ("7.2 Package SPDX identifier field"), and no other package's.
fn identifier(package: &Package, url: &str) -> String {
    let is_allowed = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    let name: String = package.name.chars().map(|letter| if is_allowed(&letter) { letter } else { '-' }).collect();
    format!("SPDXRef-Package-{name}-{}", &hexadecimal(format!("{url}\n{}", package.found_in).as_bytes())[..16])
}

/// An address that no other document has ("6.5 SPDX document namespace field"): a UUID of what it says (RFC 9562, 5.8).
fn namespace(document: &Value) -> String {
    let digits = hexadecimal(document.to_string().as_bytes());
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..15],
        &digits[15..18],
        &digits[18..30]
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document() {
        let package = |manager, name: &str, license: Option<&str>, found_in: &str| Package {
            manager,
            name: name.into(),
            version: "1.0".into(),
            architecture: None,
            source: None,
            license: license.map(str::to_owned),
            found_in: found_in.into(),
        };
        let inventory = Inventory {
            release: Release { id: "debian".into(), version: "12".into() },
            packages: vec![
                package(Manager::Debian, "libstdc++6", None, "/var/lib/dpkg/status"),
                package(Manager::Node, "@a/b", Some("MIT or so"), "/x/node_modules/@a/b/package.json"),
                package(Manager::Node, "@a/b", None, "/y/node_modules/@a/b/package.json"),
            ],
        };
        let document = |image| document(&inventory, image, Timestamp::from_millisecond(1_700_000_000_123).unwrap());
        insta::assert_json_snapshot!("a_bill_of_materials", document("web:1"));
        assert_eq!(document("a"), document("a"));
        assert_ne!(document("a")["documentNamespace"], document("b")["documentNamespace"]);
    }
}
