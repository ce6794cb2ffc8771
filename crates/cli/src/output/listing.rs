//! A listing: rows shown as a table, as JSON, or by a template.

use std::rc::Rc;

use crate::failure::Failure;
use crate::output::{self, table};
use crate::template::{Row, Template, TemplateError, Value};

/// What a kind of listing looks like unless told otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The columns, as a template.
    pub table: &'static str,
    /// The column that `--quiet` shows alone.
    pub quiet: &'static str,
    /// The heading of each column that a table may have.
    pub headings: &'static [(&'static str, &'static str)],
}

/// Renders. `format` is what `--format` says; `--quiet` goes before the default and after a format of one's own.
pub fn render(layout: &Layout, format: Option<&str>, is_quiet: bool, rows: Vec<Row>) -> Result<String, Failure> {
    let format = format.unwrap_or("").trim();
    let (template, is_table) = match format {
        "" | "table" if is_quiet => (format!("{{{{.{}}}}}", layout.quiet), false),
        "" | "table" => (layout.table.to_owned(), true),
        "json" => ("{{json .}}".to_owned(), false),
        "raw" => return Err(Failure::not_built("--format raw")),
        _ => match format.strip_prefix("table").filter(|rest| rest.starts_with(char::is_whitespace)) {
            Some(rest) => (unescape(rest.trim()), true),
            None => (unescape(format), false),
        },
    };
    let template = Template::parse(&template).map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    if is_table {
        text.push_str(&heading(layout, &template)?);
        text.push('\n');
    }
    for row in rows {
        let row = if is_table { one_line(row) } else { row };
        let line = template.render(&Value::Row(Rc::new(row))).map_err(|error| misfit(&error))?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(if is_table { table::align(&text) } else { text })
}

/// A label with a line feed in it must not look like another row.
fn one_line(row: Row) -> Row {
    let shown = |text: String| output::cell(&text).into_owned();
    Row {
        columns: row.columns.into_iter().map(|(name, value)| (name, shown(value))).collect(),
        labels: row.labels.map(|labels| labels.into_iter().map(|(name, value)| (name, shown(value))).collect()),
    }
}

/// The template over the headings gives the first line of a table.
fn heading(layout: &Layout, template: &Template) -> Result<String, Failure> {
    let columns = layout.headings.iter().map(|(name, heading)| (*name, (*heading).to_owned())).collect();
    let labels = Some(Vec::new());
    template.render(&Value::Row(Rc::new(Row { columns, labels }))).map_err(|error| misfit(&error))
}

/// A shell hands `\t` over as two characters.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// A template that does not parse.
pub fn unreadable(error: &TemplateError) -> Failure {
    let message = format!("template parsing error: {error}");
    Failure::new(message).with_exit_code(64).with_hint("--format takes 'table', 'json' or a Go template: '{{.ID}}'")
}

fn misfit(error: &TemplateError) -> Failure {
    Failure::new(format!("failed to execute template: {error}")).with_hint("--format json shows all fields")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout =
        Layout { table: "{{.ID}}\t{{.Names}}", quiet: "ID", headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")] };

    fn show(format: Option<&str>, is_quiet: bool) -> Result<String, String> {
        let row = Row {
            columns: vec![("ID", "abc".to_owned()), ("Names", "web".to_owned())],
            labels: Some(vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), "\x1b\nd\te".to_owned())]),
        };
        render(&LAYOUT, format, is_quiet, vec![row]).map_err(|failure| failure.message)
    }

    #[test]
    fn all_formats() {
        for (format, is_quiet, shown) in [
            (None, false, "CONTAINER ID   NAMES\nabc            web\n"),
            (None, true, "abc\n"),
            (Some("table"), false, "CONTAINER ID   NAMES\nabc            web\n"),
            (Some("table {{.Names}}\\t{{.Label \"a\"}}"), false, "NAMES     \nweb       b\n"),
            (Some("table {{.Label \"c\"}}\\t{{.ID}}"), false, "             CONTAINER ID\n\\x1b\\nd\\te   abc\n"),
            (Some("{{.Label \"c\"}}"), false, "\x1b\nd\te\n"),
            (Some("json"), false, "{\"ID\":\"abc\",\"Names\":\"web\"}\n"),
            (Some("{{.Names}}\\t{{.ID}}"), true, "web\tabc\n"),
        ] {
            assert_eq!(show(format, is_quiet).as_deref(), Ok(shown), "{format:?}");
        }
        assert!(show(Some("{{"), false).unwrap_err().starts_with("template parsing error: template: :1"));
        assert!(show(Some("{{.No}}"), false).unwrap_err().starts_with("failed to execute template: template: :1:2"));
    }
}
