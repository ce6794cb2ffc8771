//! Columns: cells end with a tab and are padded to their column's width, what follows the last tab is not.

/// The least width of a column, and the gap behind it, as Docker's listings have them.
const MIN_WIDTH: usize = 10;
const GAP: usize = 3;

/// Aligns the cells of all lines.
pub fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH)
}

/// The same with another least width (`top` has 20).
pub fn align_with(text: &str, min_width: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for line in &lines {
        for (index, cell) in line[..line.len() - 1].iter().enumerate() {
            if widths.len() == index {
                widths.push(min_width);
            }
            widths[index] = widths[index].max(cell.chars().count() + GAP);
        }
    }
    let mut aligned = String::new();
    for line in &lines {
        let (last, cells) = line.split_last().expect("a split has at least one part");
        for (cell, width) in cells.iter().zip(&widths) {
            aligned.push_str(cell);
            aligned.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        aligned.push_str(last);
        aligned.push('\n');
    }
    aligned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up() {
        let text = "ID\tIMAGE NAME\tX\nabc\té\tlast cell\n";
        assert_eq!(align(text), "ID        IMAGE NAME   X\nabc       é            last cell\n");
        assert_eq!(align(""), "");
    }
}
