//! Which room of `src/` uses which other room: only as the table in `ARCHITECTURE.md` allows.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A source file: its path as a module, the room it is in, and the modules that its code names.
struct Source {
    module: String,
    room: String,
    uses: BTreeSet<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

/// The code of a file: without comments, and without its unit tests, which may use anything. Unit tests are
/// at the end of a file, or in a separate file.
fn code(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let tests = (0..lines.len()).find(|&at| {
        let mut below = lines[at + 1..].iter().skip_while(|line| line.starts_with("#["));
        lines[at] == "#[cfg(test)]" && below.next().is_some_and(|line| line.ends_with("mod tests {"))
    });
    lines[..tests.unwrap_or(lines.len())].join("\n")
}

/// The paths that follow `crate::` in a piece of code: each `a::b` of `crate::a::b`, and of `crate::{a::b, c}`.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|last| last.is_alphanumeric() || last == '_' || last == '$') {
            continue;
        }
        flatten(&code[at + "crate::".len()..], "", &mut paths);
    }
    paths
}

/// Takes apart the use tree that the text begins with.
fn flatten(text: &str, prefix: &str, paths: &mut BTreeSet<String>) {
    let mut path = prefix.to_owned();
    let mut rest = text;
    loop {
        let word: String = rest.chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect();
        rest = &rest[word.len()..];
        if !word.is_empty() {
            path = if path.is_empty() { word } else { format!("{path}::{word}") };
        }
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None if rest.starts_with('{') => {
                for part in parts(&rest[1..]) {
                    flatten(part.trim(), &path, paths);
                }
                return;
            }
            None => {
                paths.insert(path);
                return;
            }
        }
    }
}

/// The parts of a list up to its closing brace, split at the commas that are not inside another list.
fn parts(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, next) in list.char_indices() {
        match next {
            '{' => depth += 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            '}' if depth == 0 => {
                parts.push(&list[from..at]);
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    let modules: Vec<_> = paths
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().with_extension("");
            let parts: Vec<_> = name.iter().map(|part| part.to_str().unwrap()).collect();
            let parts = if let [rooms @ .., "mod"] = parts.as_slice() { rooms } else { &parts };
            parts.join("::")
        })
        .collect();
    let module_of = |path: &str| {
        // The longest prefix of the path that is a file.
        let mut prefix = path;
        loop {
            if modules.iter().any(|module| module == prefix) {
                return Some(prefix.to_owned());
            }
            prefix = &prefix[..prefix.rfind("::")?];
        }
    };
    let source = |(path, module): (&PathBuf, &String)| {
        let code = code(&std::fs::read_to_string(path).unwrap());
        let above = module.rsplit_once("::").map_or("", |(above, _)| above);
        let code = code.replace("super::", &format!("crate::{above}::")).replace("crate::::", "crate::");
        // What a page takes from the files of its room, it names without the way from the crate.
        let relative = code.lines().filter_map(|line| {
            let of =
                line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("use ")?;
            let first = of.split([':', ';', ' ']).next()?;
            Some(format!("{module}::{first}"))
        });
        let relative = relative.filter(|path| modules.contains(path));
        let named: BTreeSet<_> = crate_paths(&code).into_iter().chain(relative).collect();
        let uses = named.iter().map(|path| module_of(path).unwrap_or_else(|| path.clone()));
        Source {
            module: module.clone(),
            room: module.split("::").next().unwrap().to_owned(),
            uses: uses.filter(|used| used != module).collect(),
        }
    };
    paths
        .iter()
        .zip(&modules)
        .filter(|(_, module)| *module != "lib" && !module.ends_with("::tests"))
        .map(source)
        .collect()
}

/// What the table of `ARCHITECTURE.md` allows: for each room those that it may use.
fn allowed(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut above = Vec::new();
    let table = page.lines().skip_while(|line| !line.starts_with("| room |")).skip(2);
    for row in table.take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [room, _, uses] = cells[..] else { panic!("three cells in {row}") };
        let room = room.trim_matches('`').to_owned();
        let uses = match uses {
            "nothing" => BTreeSet::new(),
            "the above" | "all of the above" => above.iter().cloned().collect(),
            list => list.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect(),
        };
        for used in &uses {
            assert!(rooms.contains_key(used), "{room} may use {used}, which does not stand above it");
        }
        above.push(room.clone());
        rooms.insert(room, uses);
    }
    rooms
}

/// Arrows between rooms that the page does not allow.
fn forbidden(sources: &[Source], rooms: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for Source { module, room, uses } in sources {
        let may = rooms.get(room).unwrap_or_else(|| panic!("the room {room} is not in ARCHITECTURE.md"));
        for used in uses {
            let other = used.split("::").next().unwrap();
            if other != room && !may.contains(other) {
                found.push(format!("{module} uses {used}"));
            }
        }
    }
    found
}

/// A circle of files that use each other, if there is one. A room's page may re-export what its files hold.
fn circle(sources: &[Source]) -> Option<Vec<String>> {
    fn visit<'a>(
        module: &'a str,
        sources: &BTreeMap<&'a str, &'a Source>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|on_way| *on_way == module) {
            return Some(way[start..].iter().map(|module| (*module).to_owned()).collect());
        }
        if done.contains(module) {
            return None;
        }
        way.push(module);
        let uses = sources.get(module).into_iter().flat_map(|source| &source.uses);
        let found = uses
            .filter(|used| sources.contains_key(used.as_str()))
            .find_map(|used| visit(used, sources, way, done));
        way.pop();
        done.insert(module);
        found
    }
    let by_module: BTreeMap<_, _> = sources.iter().map(|source| (source.module.as_str(), source)).collect();
    let mut done = BTreeSet::new();
    by_module.keys().find_map(|module| visit(module, &by_module, &mut Vec::new(), &mut done))
}

#[test]
fn arrows_go_where_the_page_allows() {
    let rooms = allowed(&std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    let sources = sources();
    assert!(sources.len() > 80 && rooms.len() > 12, "{} files, {} rooms", sources.len(), rooms.len());
    let there: BTreeSet<_> = sources.iter().map(|source| source.room.clone()).collect();
    assert_eq!(rooms.keys().cloned().collect::<BTreeSet<_>>(), there, "the rooms of the page, those of src/");
    assert_eq!(forbidden(&sources, &rooms), Vec::<String>::new());
}

#[test]
fn no_file_uses_one_that_uses_it() {
    assert_eq!(circle(&sources()), None);
}

#[test]
fn an_arrow_that_is_added_is_found() {
    let rooms = allowed(&std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    let mut sources = sources();
    let routing = sources.iter_mut().find(|source| source.module == "routing").unwrap();
    routing.uses.extend(crate_paths("use crate::{operations::pool::OperationPool};"));
    assert_eq!(forbidden(&sources, &rooms), ["routing uses operations::pool::OperationPool"]);
    let table = sources.iter_mut().find(|source| source.module == "routing::table").unwrap();
    table.uses.insert("routing".to_owned());
    let found = circle(&sources).unwrap();
    assert!(
        found.contains(&"routing".to_owned()) && found.contains(&"routing::table".to_owned()),
        "{found:?}"
    );
}

#[test]
fn unit_tests_are_no_part_of_the_code() {
    let text =
        "use a; // crate::b\n#[cfg(test)]\nmod tests;\nuse c;\n#[cfg(test)]\npub mod tests {\nuse d;\n}";
    assert_eq!(code(text), "use a; \n#[cfg(test)]\nmod tests;\nuse c;");
}

#[test]
fn paths_are_read_from_any_form_of_use() {
    let code = "use crate::{a::{b, c::D}, e};\nfn f() { crate::g::h() }\nuse crate::i::J as K;\nmycrate::x";
    let expected = ["a::b", "a::c::D", "e", "g::h", "i::J"].map(str::to_owned);
    assert_eq!(crate_paths(code), BTreeSet::from(expected));
}
