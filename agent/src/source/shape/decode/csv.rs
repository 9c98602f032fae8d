//! CSV (RFC 4180) as JSON: a row becomes an object whose names are the header's.
//!
//! A row of another length than the header is undecodable. Cells stay texts, as with Kinesis Agent's CSVTOJSON, unless
//! `numbers = true` has those become numbers that JSON would write the same.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{
    super::{document::Document, field::Number, project::push_string},
    Context, Row,
};

/// Topics, files and the like whose headers are remembered.
const ORIGINS_MAX: usize = 1000;

#[derive(Debug, Clone)]
pub(in super::super) struct Csv {
    delimiter: u8,
    /// Readers that nobody uses at present: to make one takes far longer than to read a line. (The clone of one is none:
    /// csv-core 0.1 forgets half of its tables.)
    idle: Arc<Mutex<Vec<Reader>>>,
    /// As written; else the first row has them.
    names: Option<Arc<[String]>>,
    numbers: bool,
}

/// The headers that were seen, by where they come from.
#[derive(Debug, Default)]
pub(in super::super) struct Headers(Mutex<HashMap<Box<str>, Arc<[String]>>>);

impl Csv {
    pub(super) fn new(delimiter: u8, names: Option<Vec<String>>, numbers: bool) -> Self {
        Self { delimiter, idle: Arc::default(), names: names.map(Arc::from), numbers }
    }

    pub(super) fn each(&self, payload: &[u8], context: Context<'_>, each: &mut dyn FnMut(Row<'_>)) {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = idle().pop();
        let mut reader = unused.unwrap_or_else(|| ReaderBuilder::new().delimiter(self.delimiter).build());
        reader.reset();
        self.each_row(payload, Rows::new(payload, &mut reader), context, each);
        idle().push(reader);
    }

    fn each_row(&self, payload: &[u8], mut rows: Rows<'_>, context: Context<'_>, each: &mut dyn FnMut(Row<'_>)) {
        let mut first = Cells::default();
        let Some(first_bytes) = rows.next(&mut first) else { return };
        let names = match &self.names {
            Some(names) => Arc::clone(names),
            None => {
                let mut second = Cells::default();
                let Some(second_bytes) = rows.next(&mut second) else {
                    // A source of lines: the first row of all is the header, which may come again, as with a new file.
                    return match context.headers.get(context.origin) {
                        Some(names) if is_the_same(&names, &first) => {}
                        Some(names) => self.emit(&names, &first, first_bytes, each),
                        None => match header(&first) {
                            Ok(names) => context.headers.set(context.origin, names),
                            Err(why) => each(Row::Undecodable { bytes: first_bytes, why }),
                        },
                    };
                };
                let names = match header(&first) {
                    Ok(names) => names,
                    // Without their names the rows say nothing.
                    Err(why) => return each(Row::Undecodable { bytes: payload, why }),
                };
                context.headers.set(context.origin, Arc::clone(&names));
                self.emit(&names, &second, second_bytes, each);
                names
            }
        };
        if self.names.is_some() {
            self.emit(&names, &first, first_bytes, each);
        }
        while let Some(bytes) = rows.next(&mut first) {
            self.emit(&names, &first, bytes, each);
        }
    }

    fn emit(&self, names: &[String], cells: &Cells, bytes: &[u8], each: &mut dyn FnMut(Row<'_>)) {
        match self.json(names, cells) {
            Ok(text) => each(Row::Json(Document::trusted(&text))),
            Err(why) => each(Row::Undecodable { bytes, why }),
        }
    }

    fn json(&self, names: &[String], cells: &Cells) -> Result<String, String> {
        if cells.len() != names.len() {
            return Err(format!("{} fields under a header of {}", cells.len(), names.len()));
        }
        let mut out = String::from("{");
        for (index, (name, cell)) in names.iter().zip(cells.iter()).enumerate() {
            let cell = std::str::from_utf8(cell).map_err(|_| format!("`{name}` is not UTF-8"))?;
            if index > 0 {
                out.push(',');
            }
            push_string(name, &mut out);
            out.push(':');
            if self.numbers && is_json_number(cell) { out.push_str(cell) } else { push_string(cell, &mut out) }
        }
        out.push('}');
        Ok(out)
    }
}

/// The cells of a row.
#[derive(Debug, Default)]
struct Cells {
    /// One behind the other; what is behind the last one means nothing.
    bytes: Vec<u8>,
    /// Where each ends; so many are there as the row has cells.
    ends: Vec<usize>,
    count: usize,
}

impl Cells {
    fn len(&self) -> usize {
        self.count
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends[..self.count]).map(|(begin, end)| &self.bytes[begin..*end])
    }
}

/// The rows of a payload, and the bytes that each is made of.
struct Rows<'p> {
    rest: &'p [u8],
    reader: &'p mut Reader,
}

impl<'p> Rows<'p> {
    fn new(payload: &'p [u8], reader: &'p mut Reader) -> Self {
        // A byte order mark, as spreadsheets write it, is not a part of the first name.
        Self { rest: payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload), reader }
    }

    fn next(&mut self, cells: &mut Cells) -> Option<&'p [u8]> {
        let row = self.rest;
        let (mut bytes, mut ends) = (0, 0);
        loop {
            let (result, read, written, ended) =
                self.reader.read_record(self.rest, &mut cells.bytes[bytes..], &mut cells.ends[ends..]);
            self.rest = self.rest.get(read..).unwrap_or_default();
            (bytes, ends) = (bytes + written, ends + ended);
            match result {
                // All was read: asked once more, it ends the row.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => cells.bytes.resize((2 * cells.bytes.len()).max(256), 0),
                ReadRecordResult::OutputEndsFull => cells.ends.resize((2 * cells.ends.len()).max(16), 0),
                ReadRecordResult::Record => {
                    cells.count = ends;
                    return Some(row[..row.len() - self.rest.len()].trim_ascii());
                }
                ReadRecordResult::End => return None,
            }
        }
    }
}

impl Headers {
    fn get(&self, origin: &str) -> Option<Arc<[String]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(origin).cloned()
    }

    fn set(&self, origin: &str, names: Arc<[String]>) {
        let mut headers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if headers.len() >= ORIGINS_MAX && !headers.contains_key(origin) {
            headers.clear();
        }
        headers.insert(origin.into(), names);
    }
}

/// The names of a row that can be a header: all different, none empty, none a number. A line from the middle of a file
/// that is taken for a header would give everything behind it wrong names.
fn header(cells: &Cells) -> Result<Arc<[String]>, String> {
    let names: Vec<_> = cells.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() || Number::parse(name).is_some() || names[..index].contains(name) {
            return Err(format!("no header: `{name}` is no name of a column, or not the only one"));
        }
    }
    Ok(names.into())
}

fn is_the_same(names: &[String], cells: &Cells) -> bool {
    names.len() == cells.len()
        && names.iter().zip(cells.iter()).all(|(name, cell)| cell.trim_ascii() == name.as_bytes())
}

fn is_json_number(text: &str) -> bool {
    Number::parse(text).is_some() && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Decode,
            tests::{row, rows},
        },
        *,
    };

    type Told = Vec<Result<String, Vec<u8>>>;

    fn ok(texts: &[&str]) -> Told {
        texts.iter().map(|text| Ok((*text).to_owned())).collect()
    }

    #[test]
    fn rows_get_the_names_of_the_header() {
        let csv = Decode::Csv(Csv::new(b',', None, false));
        let payload = b"\xef\xbb\xbfdevice,temp,note\r\nd-1,21.50,\"hot, \"\"very\"\"\nhot\"\r\nd-2,,\n";
        let expected = [
            r#"{"device":"d-1","temp":"21.50","note":"hot, \"very\"\nhot"}"#,
            r#"{"device":"d-2","temp":"","note":""}"#,
        ];
        assert_eq!(rows(&csv, &Headers::default(), payload), ok(&expected));
        let numbers = Decode::Csv(Csv::new(b'\t', Some(vec!["a".into(), "b".into()]), true));
        for (line, expected) in [
            ("1.50\t007", r#"{"a":1.50,"b":"007"}"#),
            ("-1e3\t.5", r#"{"a":-1e3,"b":".5"}"#),
            ("x\tinf", r#"{"a":"x","b":"inf"}"#),
        ] {
            assert_eq!(row(&numbers, line.as_bytes()), Ok(expected.into()));
        }
    }

    #[test]
    fn rows_may_have_any_length() {
        let csv = Decode::Csv(Csv::new(b',', None, false));
        let header: Vec<_> = (0..300).map(|column| format!("c{column}")).collect();
        let cells: Vec<_> = (0..300).map(|column| "x".repeat(column)).collect();
        let payload = format!("{}\r\n{}\n\n{}", header.join(","), cells.join(","), cells.join(","));
        let object: Vec<_> = header.iter().zip(&cells).map(|(name, cell)| format!("\"{name}\":\"{cell}\"")).collect();
        let object = format!("{{{}}}", object.join(","));
        assert_eq!(rows(&csv, &Headers::default(), payload.as_bytes()), ok(&[&object, &object]));
        // A row that ends within quotes is one all the same.
        let csv = Decode::Csv(Csv::new(b',', Some(vec!["a".into(), "b".into()]), false));
        assert_eq!(rows(&csv, &Headers::default(), b"1,\"half"), ok(&[r#"{"a":"1","b":"half"}"#]));
    }

    #[test]
    fn the_first_line_of_a_source_of_lines_is_the_header() {
        let csv = Decode::Csv(Csv::new(b';', None, false));
        let headers = Headers::default();
        let mut told = Told::new();
        for line in ["a;b", "1;2", "a;b\n", "3;4", "x", "c;d\n5;6\n", "7;8"] {
            told.extend(rows(&csv, &headers, line.as_bytes()));
        }
        let mut expected = ok(&[r#"{"a":"1","b":"2"}"#, r#"{"a":"3","b":"4"}"#]);
        expected.push(Err(b"x".to_vec()));
        expected.extend(ok(&[r#"{"c":"5","d":"6"}"#, r#"{"c":"7","d":"8"}"#]));
        assert_eq!(told, expected);
    }

    #[test]
    fn what_has_no_header_is_undecodable_and_given_back_whole() {
        let csv = Decode::Csv(Csv::new(b',', None, false));
        for payload in ["21.5,7\n22,8\n", "21.5,7", "a,a\n1,2", "a,\n1,2"] {
            assert_eq!(rows(&csv, &Headers::default(), payload.as_bytes()), [Err(payload.into())], "{payload}");
        }
        let told = rows(&csv, &Headers::default(), b"a,b\n1,2\n3\n4,\xff\n5,6");
        assert_eq!(told[1..3], [Err(b"3".to_vec()), Err(b"4,\xff".to_vec())]);
        assert_eq!(told.len(), 4);
        assert_eq!(rows(&csv, &Headers::default(), b"\n\n"), Told::new());
    }

    #[test]
    fn headers_are_remembered_for_so_many() {
        let headers = Headers::default();
        for index in 0..3 * ORIGINS_MAX {
            headers.set(&index.to_string(), Arc::from(["a".to_owned()]));
            assert!(headers.0.lock().expect("whole").len() <= ORIGINS_MAX);
            assert!(headers.get(&index.to_string()).is_some());
        }
    }
}
