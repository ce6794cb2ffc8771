//! `search`, against a server that answers as Docker Hub's index does (docs.docker.com/reference/api/engine, "Search images").

use dozen_testbox::Machine;
use serde_json::{Value, json};

use crate::registry::{Between, reply};

/// As the index writes an image.
fn image(name: &str, description: &str, stars: i64, is_official: bool) -> Value {
    json!({
        "name": name, "description": description, "star_count": stars, "is_official": is_official,
        "is_automated": true, "is_trusted": false, "pull_count": 7,
    })
}

fn index(machine: &Machine) -> Between {
    Between::start(machine, 0, |asked| {
        let Some(query) = asked.path.strip_prefix("/v1/search?") else {
            return reply("404 Not Found", &[], b"404 page not found");
        };
        match query {
            "q=secret&n=25" if asked.field("authorization").is_none() => {
                return reply("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b"");
            }
            "q=secret&n=25" => assert_eq!(asked.field("authorization"), Some("Basic bWU6c2VzYW1lLW9wZW4=")),
            "q=team%2Fweb%20x&n=2" | "q=web&n=25" => {}
            other => return reply("400 Bad Request", &[], other.as_bytes()),
        }
        let results = [
            image("web", "The official one.", 20_000, true),
            image("team/web", "A long\ndescription of what somebody has made of it, with more words", 5, false),
            image("other/web", "", 0, false),
        ];
        let body =
            json!({ "num_pages": 1, "num_results": 3, "page": 1, "page_size": 25, "query": "web", "results": results });
        reply("200 OK", &[("Content-Type", "application/json")], body.to_string().as_bytes())
    })
}

#[test]
fn images_are_found_by_a_word() {
    let machine = Machine::new();
    let index = index(&machine);
    let engine = machine.engine();
    let term = format!("{}/web", index.host);
    let table = "NAME        DESCRIPTION                                     STARS     OFFICIAL\n\
                 web         The official one.                               20000     [OK]\n\
                 team/web    A long description of what somebody has made…   5         \n\
                 other/web                                                   0         \n";
    assert_eq!(engine.dozen(&["search", &term]).text(), table);
    assert_eq!(engine.docker(&["search", &term]).text().lines().count(), 4);
    let shown = |flags: &[&str]| engine.dozen(&[&["search", "--format", "{{.Name}}"], flags, &[&term]].concat()).text();
    assert_eq!(shown(&["--filter", "is-official=true"]), "web\n");
    assert_eq!(shown(&["--filter", "is-official=false", "--filter", "stars=3"]), "team/web\n");
    assert_eq!(shown(&["-f", "stars=100000"]), "");
    let whole = engine.dozen(&["search", "--no-trunc", &term]).text();
    assert!(whole.contains("has made of it, with more words"), "{whole}");
    let spaced = format!("{}/team/web x", index.host);
    let limited = engine.dozen(&["search", "--limit", "2", "--format", "json", &spaced]).text();
    assert_eq!(limited.lines().count(), 2, "{limited}");
    assert!(
        limited
            .starts_with(r#"{"Description":"The official one.","IsOfficial":"true","Name":"web","StarCount":"20000"}"#)
    );
    for (arguments, words) in [
        (&["--limit", "101", term.as_str()][..], "limit 101 is outside the range of [1, 100]"),
        (&["--filter", "color=red", &term], "invalid filter 'color'"),
        (&["--filter", "stars=many", &term], "invalid filter 'stars=many'"),
        (&["https://a.example/web"], "should not have a scheme"),
        (&["web"], "cannot reach the registry index.docker.io"),
        (&[&format!("{}/nothing", index.host)], "Unexpected status code 400"),
    ] {
        engine.dozen(&[&["search"], arguments].concat()).refuses(1, &[words]);
    }
    // Who asks is told only where it is wanted.
    let secret = format!("{}/secret", index.host);
    engine.dozen(&["search", &secret]).refuses(1, &["no basic auth credentials"]);
    let directory = machine.directory().join("docker-config");
    std::fs::create_dir_all(&directory).unwrap();
    let config = json!({ "auths": { &index.host: { "auth": "bWU6c2VzYW1lLW9wZW4=" } } });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    assert_eq!(engine.dozen(&["search", &secret]).text().lines().count(), 4);
    index.stop(&machine);
}
