//! The store alone: numbers, labels, standing, and what is taken.

use super::super::Secret;
use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn new(label: Option<&str>) -> NewDevice {
    NewDevice {
        label: label.map(|label| label.parse().expect("a label")),
        hash: Hash::of(&Secret::random()),
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

#[tokio::test]
async fn numbers_count_up_and_are_never_given_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("directory.sqlite");
    let store = Sqlite::open(&path).await.expect("made");
    let ann = store.add_user(&name("ann"), NOW, &new(None)).await.expect("added");
    assert_eq!((ann.uin.0, ann.device.0), (10_001, 1));
    let error = store.add_user(&name("ann"), NOW, &new(None)).await.expect_err("taken");
    assert!(matches!(error, DirectoryError::NameTaken(_)), "{error}");
    let bob = store.add_user(&name("bob"), NOW, &new(None)).await.expect("added");
    assert_eq!(bob.uin.0, 10_002, "a refused name uses no number up");

    sqlx::query("DELETE FROM devices WHERE uin = 10002")
        .execute(&store.pool)
        .await
        .expect("deleted");
    sqlx::query("DELETE FROM users WHERE uin = 10002").execute(&store.pool).await.expect("deleted");
    store.close().await;
    let store = Sqlite::open(&path).await.expect("opened");
    let cid = store.add_user(&name("cid"), NOW, &new(None)).await.expect("added");
    assert_eq!(cid.uin.0, 10_003, "deleted, and after a restart");
}

#[tokio::test]
async fn devices_have_labels_and_numbers_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Sqlite::open(&folder.path().join("d")).await.expect("made");
    let ann = name("ann");
    store.add_user(&ann, NOW, &new(None)).await.expect("added");
    let add = async |label| store.add_device(&ann, NOW, &new(label), 100).await;
    let (second, label) = add(None).await.expect("added");
    assert_eq!((second.device.0, label.as_str()), (2, "2"));
    let (third, label) = add(Some("phone")).await.expect("added");
    assert_eq!((third.device.0, label.as_str()), (3, "phone"));
    let error = add(Some("phone")).await.expect_err("taken");
    assert!(matches!(error, DirectoryError::LabelTaken(_)), "{error}");

    store.revoke(third).await.expect("revoked");
    sqlx::query("DELETE FROM devices WHERE device = 3").execute(&store.pool).await.expect("ok");
    let (fourth, _) = add(Some("phone")).await.expect("added");
    assert_eq!(fourth.device.0, 4, "the number of a deleted device stays used");

    let error = store.add_device(&name("bob"), NOW, &new(None), 100).await.expect_err("no user");
    assert!(matches!(error, DirectoryError::NoUser(_)), "{error}");
    let listed = store.devices(Some(second.uin)).await.expect("listed");
    let numbers: Vec<u32> = listed.iter().map(|device| device.device).collect();
    assert_eq!(numbers, [1, 2, 4]);
}

#[tokio::test]
async fn standing_follows_user_and_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Sqlite::open(&folder.path().join("d")).await.expect("made");
    let ann = store.add_user(&name("ann"), NOW, &new(None)).await.expect("added");
    let standing =
        async || store.credential(ann).await.expect("read").map(|credential| credential.standing);
    assert_eq!(standing().await, Some(Standing::Good));
    store.set_disabled(ann.uin, true).await.expect("disabled");
    assert_eq!(standing().await, Some(Standing::Disabled));
    assert!(store.exists(ann.uin).await.expect("read"), "a disabled user is still there");
    store.set_disabled(ann.uin, false).await.expect("enabled");
    store.revoke(ann).await.expect("revoked");
    assert_eq!(standing().await, Some(Standing::Revoked));

    let nobody = Device { uin: Uin(u64::MAX), device: ann.device };
    assert_eq!(store.credential(nobody).await.expect("read"), None);
    assert!(!store.exists(nobody.uin).await.expect("read"));
}
