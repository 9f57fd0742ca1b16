//! Records as CSV (RFC 4180, with a header).

use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};

/// Rows of one kind. The columns are the fields of the records, in the order in which they first appear: fields of
/// a field are `time_s.p50`, elements of a list `by_cpl.0`. Null is an empty cell, and so is a field that a record does
/// not have. A list of records (`asked`) has no columns.
#[derive(Clone, Debug, Default)]
pub struct Csv {
    columns: Vec<String>,
    /// Each row as text, and how many cells it has: columns that come later are to the right of it.
    rows: Vec<(String, usize)>,
}

impl Csv {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    ///
    /// # Errors
    /// That of the record's own serialisation, if it fails.
    pub fn push(&mut self, record: &impl Serialize) -> Result<(), serde_json::Error> {
        let mut cells = vec![String::new(); self.columns.len()];
        self.fill(&mut String::new(), &serde_json::to_value(record)?, &mut cells);
        self.rows.push((cells.join(","), cells.len()));
        Ok(())
    }

    fn fill(&mut self, name: &mut String, value: &Value, cells: &mut Vec<String>) {
        let mut below = |part: &str, value: &Value| {
            let length = name.len();
            if length > 0 {
                name.push('.');
            }
            name.push_str(part);
            self.fill(name, value, cells);
            name.truncate(length);
        };
        match value {
            Value::Object(fields) => fields.iter().for_each(|(field, value)| below(field, value)),
            Value::Array(list) if !list.iter().any(Value::is_object) => {
                list.iter().enumerate().for_each(|(number, value)| below(&number.to_string(), value));
            }
            Value::Array(_) => {}
            Value::Null => self.put(name, "", cells),
            Value::String(text) => self.put(name, &quoted(text), cells),
            Value::Bool(_) | Value::Number(_) => self.put(name, &value.to_string(), cells),
        }
    }

    fn put(&mut self, name: &str, cell: &str, cells: &mut Vec<String>) {
        let column = self.columns.iter().position(|column| column == name).unwrap_or_else(|| {
            self.columns.push(name.to_owned());
            self.columns.len() - 1
        });
        cells.resize(cells.len().max(column + 1), String::new());
        cells.iter_mut().skip(column).take(1).for_each(|place| cell.clone_into(place));
    }

    /// Writes the header and the rows.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = io::BufWriter::new(to);
        let header: Vec<_> = self.columns.iter().map(|name| quoted(name)).collect();
        writeln!(to, "{}", header.join(","))?;
        for (row, cells) in &self.rows {
            writeln!(to, "{row}{}", ",".repeat(self.columns.len() - cells))?;
        }
        to.flush()
    }
}

/// A cell with this text, in quotes if it needs them.
fn quoted(text: &str) -> String {
    if !text.contains([',', '"', '\n', '\r']) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('"', "\"\""))
}
