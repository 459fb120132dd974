//! Figures of a paper, as `bench/data/hpca21/*.csv` hold them.

use std::path::Path;

use anyhow::{anyhow, Context};

/// A table whose first column names the rows and whose first row names the columns.
pub struct Figures {
    columns: Vec<String>,
    rows: Vec<(String, Vec<f64>)>,
}

impl Figures {
    /// Reads a file.
    pub fn read(path: &Path) -> anyhow::Result<Figures> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let heading = lines.next().ok_or_else(|| anyhow!("{}: empty", path.display()))?;
        let columns: Vec<String> = heading.split(',').skip(1).map(|cell| cell.trim().to_owned()).collect();
        let row = |line: &str| -> anyhow::Result<(String, Vec<f64>)> {
            let mut cells = line.split(',').map(str::trim);
            let name = cells.next().unwrap_or_default().to_owned();
            let numbers: Result<Vec<f64>, _> = cells.map(str::parse).collect();
            let numbers = numbers.map_err(|error| anyhow!("{}: {line:?}: {error}", path.display()))?;
            if numbers.len() == columns.len() {
                Ok((name, numbers))
            } else {
                Err(anyhow!("{}: {line:?}: {} numbers for {} columns", path.display(), numbers.len(), columns.len()))
            }
        };
        let rows = lines.map(row).collect::<anyhow::Result<_>>()?;
        Ok(Figures { columns, rows })
    }

    /// The number in a row and a column.
    pub fn get(&self, row: &str, column: &str) -> anyhow::Result<f64> {
        let at = self.columns.iter().position(|name| name == column);
        let row = self.rows.iter().find(|(name, _)| name == row).with_context(|| format!("no row {row}"))?;
        at.map(|at| row.1[at]).with_context(|| format!("no column {column}"))
    }
}
