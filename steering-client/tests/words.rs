//! What people type: target sets, assignments, cells.

use ipengine_protocol::{EngineId, ValueKind};
use ipsteer::cli::{Assignment, AssignmentError, Source, is_complete};
use ipsteer::{Error, targets};

fn engines(text: &str, size: u32) -> Vec<u32> {
    let engines = targets::parse(text, size).unwrap_or_else(|error| panic!("{text}: {error}"));
    engines.into_iter().map(|engine| engine.0).collect()
}

#[test]
fn target_sets_are_read_as_python_reads_indices() {
    for (text, expected) in [
        ("all", vec![0, 1, 2, 3, 4]),
        ("0,2", vec![0, 2]),
        ("2, 0", vec![2, 0]),
        ("-1", vec![4]),
        ("-5", vec![0]),
        ("1:3", vec![1, 2]),
        ("::2", vec![0, 2, 4]),
        ("1::2", vec![1, 3]),
        ("::-1", vec![4, 3, 2, 1, 0]),
        ("3:0:-1", vec![3, 2, 1]),
        ("-2:", vec![3, 4]),
        (":-3", vec![0, 1]),
        ("0,3:99", vec![0, 3, 4]),
    ] {
        assert_eq!(engines(text, 5), expected, "{text}");
    }
}

#[test]
fn what_is_no_target_set_is_refused() {
    for text in [
        "",
        ",",
        "a",
        "0,",
        "1:2:3:4",
        "::0",
        "0 1",
        "1.5",
        "99999999999999999999",
    ] {
        assert!(
            matches!(targets::parse(text, 4), Err(Error::TargetSyntax(_))),
            "{text}"
        );
    }
    assert!(matches!(
        targets::parse("4", 4),
        Err(Error::UnknownEngine { engine: 4, size: 4 })
    ));
    assert!(matches!(
        targets::parse("-5", 4),
        Err(Error::UnknownEngine { engine: -5, size: 4 })
    ));
    assert!(matches!(
        targets::parse("0,0", 4),
        Err(Error::RepeatedEngine(EngineId(0)))
    ));
    assert!(matches!(
        targets::parse("all,1", 4),
        Err(Error::RepeatedEngine(EngineId(1)))
    ));
    assert!(matches!(targets::parse("3:1", 4), Err(Error::NoTargets)));
    assert!(
        matches!(targets::parse("9223372036854775807::-9223372036854775808", 4), Ok(engines) if engines.len() == 1)
    );
}

#[test]
fn sets_of_engines_are_named_shortly() {
    let describe =
        |ranks: &[u32]| targets::describe(&ranks.iter().copied().map(EngineId).collect::<Vec<_>>());
    assert_eq!(describe(&[3, 1, 2, 0]), "0-3");
    assert_eq!(describe(&[0, 1, 5]), "0, 1, 5");
    assert_eq!(describe(&[0, 1, 2, 7, 9, 10, 11]), "0-2, 7, 9-11");
}

#[test]
fn assignments_say_where_the_value_comes_from() {
    for (text, name, source) in [
        ("x=1", "x", Source::Literal("1".to_owned())),
        ("x=[1, 2]", "x", Source::Literal("[1, 2]".to_owned())),
        ("x='a=b'", "x", Source::Literal("'a=b'".to_owned())),
        ("a.b=None", "a.b", Source::Literal("None".to_owned())),
        ("été=1", "été", Source::Literal("1".to_owned())),
        ("x:={\"a\": null}", "x", Source::Json("{\"a\": null}".to_owned())),
        ("x=@data.npy", "x", Source::File("data.npy".into())),
        ("x=@-", "x", Source::File("-".into())),
    ] {
        let expected = Assignment {
            name: name.to_owned(),
            source,
        };
        assert_eq!(Assignment::parse(text).expect(text), expected);
    }
}

#[test]
fn what_is_no_assignment_is_refused() {
    let error = |text: &str| Assignment::parse(text).expect_err(text);
    assert!(matches!(error("x"), AssignmentError::Form(_)));
    assert!(matches!(error("=1"), AssignmentError::Form(_)));
    assert!(matches!(error(":=1"), AssignmentError::Form(_)));
    for name in ["1x=1", "a b=1", "a..b=1", "a-b=1", ".a=1"] {
        assert!(matches!(error(name), AssignmentError::Name(_)), "{name}");
    }
    assert!(matches!(error("x:=nope"), AssignmentError::Json { .. }));
    assert!(matches!(error("x:="), AssignmentError::Json { .. }));
}

#[test]
fn files_are_checked_before_they_travel() {
    let dir = tempfile::tempdir().expect("a directory");
    let assign = |name: &str, contents: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, contents).expect("written");
        Assignment {
            name: "x".to_owned(),
            source: Source::File(path),
        }
        .value()
    };
    let kind = |name: &str, contents: &[u8]| assign(name, contents).expect(name).0.kind;
    assert_eq!(kind("a.npy", b"\x93NUMPY\x01\x00"), ValueKind::Npy);
    assert_eq!(kind("a.json", b"[1]"), ValueKind::Json);
    assert_eq!(kind("a.txt", "é".as_bytes()), ValueKind::Text);
    assert!(matches!(
        kind("a.pkl", b"\x80\x05N."),
        ValueKind::Pickle { by_value: false, .. }
    ));
    for (name, contents) in [
        ("b.npy", &b"PK"[..]),
        ("b.json", b"{"),
        ("b.txt", b"\xff"),
        ("b.pkl", b""),
    ] {
        assert!(
            matches!(assign(name, contents), Err(AssignmentError::Content { .. })),
            "{name}"
        );
    }
    assert!(matches!(assign("b.dat", b""), Err(AssignmentError::Extension(_))));
    let missing = Assignment {
        name: "x".to_owned(),
        source: Source::File(dir.path().join("none.npy")),
    };
    assert!(matches!(missing.value(), Err(AssignmentError::Read { .. })));
}

#[test]
fn a_cell_is_sent_when_it_is_whole() {
    for whole in [
        "",
        "x = 1",
        "f(1,\n  2)",
        "s = 'it''s ['",
        "# a [ comment",
        "x = 1  # (",
        "\"\"\"two\nlines\"\"\"",
        "d = {'a': [1, (2)]}",
        "for i in x:\n    f(i)\n",
        "x = {1:2}",
        "x = 'unfinished",
        "s = 'a\\'('",
        "%%time\nx\n",
    ] {
        assert!(is_complete(whole), "{whole:?}");
    }
    for open in [
        "for i in x:",
        "for i in x:  # comment",
        "for i in x:\n    f(i)",
        "f(1,",
        "x = [1,\n2",
        "s = \"\"\"text",
        "s = '''it's",
        "x = 1 + \\",
        "@decorated",
        "class A:\n    def f(self):\n        pass",
        "%%time",
    ] {
        assert!(!is_complete(open), "{open:?}");
    }
}
