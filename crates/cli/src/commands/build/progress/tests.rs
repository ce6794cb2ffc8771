use super::super::events::{Output, Step};
use super::*;

fn step(id: usize, text: &str) -> Event {
    Event::Step(Step { id, stage: "build".into(), number: id, count: 3, total: 4, text: text.into() })
}

fn said(step: usize, text: &str) -> Event {
    Event::Output(Output { step, stream: "stdout".into(), text: text.into() })
}

/// What plain progress shows, with all times 0.
fn plain(events: &[Event]) -> String {
    let (mut journal, mut plain) = (Journal::default(), Plain::default());
    let now = Duration::ZERO;
    let mut shown = Vec::new();
    for event in events {
        let (id, lines, has_ended) = match event {
            Event::Step(step) => {
                journal.begin(step.id, step.title(), now);
                (step.id, Vec::new(), true)
            }
            Event::Output(it) => (it.step, journal.take(it.step, &it.text, now), false),
            Event::Done(id) | Event::Cached(id) => {
                let rest = journal.rest(*id, now);
                if !rest.is_empty() {
                    shown.push(plain.show(*id, &journal.steps[id], &rest));
                }
                journal.end(*id, matches!(event, Event::Cached(_)), now);
                (*id, Vec::new(), true)
            }
            Event::Warning(text) => {
                shown.push(plain.warning(text));
                continue;
            }
            _ => panic!("{event:?}"),
        };
        if has_ended || !lines.is_empty() {
            shown.push(plain.show(id, &journal.steps[&id], &lines));
        }
    }
    shown.join("\n")
}

#[test]
fn plain_lines_are_buildkits() {
    let events = [
        step(1, "FROM busybox"),
        Event::Done(1),
        Event::Warning("mind".into()),
        step(2, "RUN make"),
        said(2, "one\ntw"),
        step(3, "RUN other"),
        said(3, "side\r"),
        said(2, "o\nthr"),
        said(2, "ee"),
        Event::Done(2),
        Event::Cached(3),
    ];
    assert_eq!(
        plain(&events),
        "#2 [build 1/3] FROM busybox\n#2 DONE 0.0s\n\nWARNING: mind\n\n#3 [build 2/3] RUN make\n#3 0.000 one\n\n\
         #4 [build 3/3] RUN other\n\n#3 [build 2/3] RUN make\n#3 0.000 two\n#3 0.000 three\n#3 DONE 0.0s\n\n\
         #4 [build 3/3] RUN other\n#4 0.000 side\n#4 CACHED"
    );
}

#[test]
fn a_failed_steps_last_words_are_kept() {
    let mut journal = Journal::default();
    for id in 1..=2 {
        journal.begin(id, format!("[{id}/2] RUN x"), Duration::from_secs(1));
    }
    for number in 0..30 {
        journal.take(1, &format!("line {number}\n"), Duration::from_secs(3));
    }
    journal.take(1, "the end", Duration::from_secs(3));
    let (culprit, record) = journal.culprit(None).unwrap();
    assert_eq!(culprit, 1);
    let words = record.last_words();
    assert!(words.starts_with("------\n > [1/2] RUN x:\n2.000 line 10\n"), "{words}");
    assert!(words.ends_with("2.000 line 29\nthe end\n------\n"), "{words}");
    journal.end(1, false, Duration::from_secs(4));
    assert_eq!(journal.culprit(None).map(|(step, record)| (step, record.last_words())), Some((2, String::new())));
    assert_eq!(journal.culprit(Some(1)).map(|(step, _)| step), Some(1), "the engine knows better");
}

#[test]
fn modes_are_read() {
    // Tests have no terminal.
    for (flag, variable, is_quiet, mode) in [
        (None, None, false, Ok(Mode::Plain)),
        (None, None, true, Ok(Mode::Quiet)),
        (None, Some("rawjson"), false, Ok(Mode::RawJson)),
        (Some("plain"), Some("rawjson"), false, Ok(Mode::Plain)),
        (Some("auto"), Some(""), false, Ok(Mode::Plain)),
        (Some("quiet"), None, false, Ok(Mode::Quiet)),
        (Some("plain"), None, true, Err("progress=plain and quiet cannot be used together")),
        (Some("pretty"), None, false, Err("invalid argument \"pretty\" for \"--progress\" flag")),
    ] {
        let read = Mode::read(flag, variable, is_quiet).map_err(|failure| failure.message);
        match (read, mode) {
            (Ok(read), Ok(mode)) => assert_eq!(read, mode, "{flag:?}"),
            (Err(said), Err(words)) => assert!(said.contains(words), "{said}"),
            (read, _) => panic!("{flag:?}: {read:?}"),
        }
    }
}
