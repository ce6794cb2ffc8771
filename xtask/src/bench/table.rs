//! A table that is read as it stands in a terminal and rendered by whoever renders Markdown.

/// Columns as wide as their widest cell; the first is aligned to the left, the others to the right.
pub fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::from("|");
        for (column, (cell, width)) in cells.zip(&widths).enumerate() {
            text += &if column == 0 { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") };
        }
        text + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    text.push('|');
    for (column, width) in widths.iter().enumerate() {
        let dashes = "-".repeat(width + 1);
        text += &if column == 0 { format!("{dashes}-|") } else { format!("{dashes}:|") };
    }
    text.push('\n');
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["run".to_owned(), "12.3".to_owned()], vec!["a longer one".to_owned(), "–".to_owned()]];
        let expected = "| work         | dozen |\n\
                        |--------------|------:|\n\
                        | run          |  12.3 |\n\
                        | a longer one |     – |\n";
        assert_eq!(render(&["work", "dozen"], &rows), expected);
    }
}
