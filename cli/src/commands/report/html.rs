//! Escaping, and tables.

use std::fmt::{self, Display, Write};

/// Text in a page: nothing in it is markup.
pub struct Text<T>(pub T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A table whose rows become lists of named values where the screen is narrow.
pub struct Table {
    head: Vec<(&'static str, bool)>,
    rows: Vec<Row>,
}

/// Cells, and what stands below all of them.
struct Row {
    cells: Vec<String>,
    below: Option<String>,
}

impl Table {
    /// A table with these columns; `true` for columns of numbers.
    pub fn new(head: &[(&'static str, bool)]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of cells that are markup already.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(Row { cells: cells.into_iter().collect(), below: None });
    }

    /// Puts markup below the cells of the last row, as wide as the table.
    pub fn below(&mut self, markup: String) {
        if let Some(row) = self.rows.last_mut() {
            row.below = Some(markup);
        }
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = |numeric: bool| if numeric { " class=\"number\"" } else { "" };
        f.write_str("<div class=\"wide\"><table>\n<thead><tr>")?;
        for (name, numeric) in &self.head {
            write!(f, "<th{}>{}</th>", class(*numeric), Text(name))?;
        }
        f.write_str("</tr></thead>\n<tbody>\n")?;
        for row in &self.rows {
            f.write_str(if row.below.is_some() { "<tr class=\"above\">" } else { "<tr>" })?;
            for (cell, (name, numeric)) in row.cells.iter().zip(&self.head) {
                write!(f, "<td{} data-name=\"{}\">{cell}</td>", class(*numeric), Text(name))?;
            }
            f.write_str("</tr>\n")?;
            if let Some(below) = &row.below {
                writeln!(f, "<tr><td colspan=\"{}\">{below}</td></tr>", self.head.len())?;
            }
        }
        f.write_str("</tbody></table></div>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let text = "<script>alert(\"1\" & '2')</script>";
        let escaped = Text(text).to_string();
        assert!(!escaped.contains(['<', '>', '"', '\'']), "{escaped}");
        assert!(escaped.contains("&lt;script&gt;") && escaped.contains("&amp;"));
    }
}
