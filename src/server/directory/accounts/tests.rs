//! Who is let in and who is not, from when on, and what is remembered of it.

use std::task::Poll;
use std::time::Instant;

use super::super::Sqlite;
use super::*;

async fn accounts(folder: &tempfile::TempDir) -> Accounts<Sqlite> {
    let path = folder.path().join("directory.sqlite");
    let limits = Limits { devices_per_user: 5 };
    Accounts::new(Sqlite::open(&path).await.expect("opened"), limits)
}

#[tokio::test]
async fn only_the_right_secret_of_the_right_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let name = "ann".parse().expect("a name");
    let first = accounts.add_user(&name).await.expect("added");
    let second = accounts.add_device(&name, None).await.expect("added");
    for _ in 0..2 {
        // the second time from memory
        assert_eq!(accounts.authenticate(first.device, &first.secret).await, Ok(()));
        assert_eq!(accounts.authenticate(second.device, &second.secret).await, Ok(()));
        let wrong = accounts.authenticate(first.device, &second.secret).await;
        assert_eq!(wrong, Err(Code::BadCredentials));
    }
    let nobody = Device { uin: Uin(1), device: DeviceId(1) };
    let unknown = accounts.authenticate(nobody, &first.secret).await;
    assert_eq!(unknown, Err(Code::BadCredentials), "the same answer");
}

/// S-12. The times are printed, not judged: they are this machine's.
#[tokio::test]
async fn a_wrong_secret_and_an_unknown_device_go_one_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let ann = accounts.add_user(&"ann".parse().expect("a name")).await.expect("added").device;
    let (wrong, nobody) = (Secret::random(), Device { uin: Uin(9), ..ann });
    let mut micros = [Vec::new(), Vec::new()];
    for round in 0..tern_random::soaked(2_000) {
        for place in 0..2 {
            let which = (round as usize + place) % 2; // neither is always the first
            let start = Instant::now();
            let answer = accounts.authenticate([ann, nobody][which], &wrong).await;
            micros[which].push(start.elapsed().as_secs_f64() * 1e6);
            assert_eq!(answer, Err(Code::BadCredentials));
        }
    }
    let medians = micros.each_mut().map(|micros| {
        micros.sort_by(f64::total_cmp);
        micros[micros.len() / 2]
    });
    println!(
        "TEST S-12 one-answer n={} accepted=0 medians wrong_us={:.1} unknown_us={:.1} welch_t={:.1}",
        2 * micros[0].len(),
        medians[0],
        medians[1],
        welch(&micros[0], &micros[1])
    );
}

/// How many standard errors lie between two means, without the slowest tenth of each: those
/// waited for the scheduler. Sorted.
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let figures = |times: &[f64]| {
        let times = &times[..times.len() * 9 / 10];
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let squares: f64 = times.iter().map(|time| (time - mean).powi(2)).sum();
        (mean, squares / (count - 1.0) / count)
    };
    let ((one, of_one), (other, of_other)) = (figures(one), figures(other));
    (one - other) / (of_one + of_other).sqrt()
}

#[tokio::test]
async fn disabling_and_revoking_take_effect_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let name = "ann".parse().expect("a name");
    let first = accounts.add_user(&name).await.expect("added");
    let second = accounts.add_device(&name, None).await.expect("added");
    let check =
        async |added: &AddedDevice| accounts.authenticate(added.device, &added.secret).await;
    assert_eq!((check(&first).await, check(&second).await), (Ok(()), Ok(())));

    accounts.set_disabled("ann", true).await.expect("disabled");
    assert_eq!(check(&first).await, Err(Code::UserDisabled));
    let wrong = accounts.authenticate(first.device, &second.secret).await;
    assert_eq!(wrong, Err(Code::BadCredentials), "told to who has the secret only");
    accounts.set_disabled("ann", false).await.expect("enabled");
    assert_eq!(check(&first).await, Ok(()));

    accounts.revoke("ann", "2").await.expect("revoked");
    assert_eq!(check(&second).await, Err(Code::DeviceRevoked));
    assert_eq!(check(&first).await, Ok(()), "the other device is as it was");
    let error = accounts.revoke("ann", "9").await.expect_err("no such device");
    assert!(matches!(error, DirectoryError::NoDevice(_)), "{error}");
    let error = accounts.set_disabled("bob", true).await.expect_err("no such user");
    assert!(matches!(error, DirectoryError::NoUser(_)), "{error}");
}

#[tokio::test]
async fn a_label_goes_before_a_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let name = "ann".parse().expect("a name");
    accounts.add_user(&name).await.expect("added");
    let label = Some("1x".parse().expect("a label"));
    accounts.add_device(&name, label).await.expect("added");
    let label = Some("9".parse().expect("a label"));
    accounts.add_device(&name, label).await.expect("added");
    assert_eq!(accounts.revoke("ann", "9").await.expect("revoked").device, 3);
    assert_eq!(accounts.revoke("ann", "2").await.expect("revoked").label, "1x");
}

#[tokio::test]
async fn who_was_let_in_lately_is_let_in_without_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let ann = accounts.add_user(&"ann".parse().expect("a name")).await.expect("added");
    let bob = accounts.add_user(&"bob".parse().expect("a name")).await.expect("added");
    let check =
        async |added: &AddedDevice| accounts.authenticate(added.device, &added.secret).await;
    assert_eq!(check(&ann).await, Ok(()));
    assert_eq!(accounts.authenticate(bob.device, &ann.secret).await, Err(Code::BadCredentials));
    accounts.directory().close().await;
    assert_eq!(check(&ann).await, Ok(()), "remembered");
    assert_eq!(check(&bob).await, Err(Code::Busy), "a refusal is not remembered");
    let wrong = accounts.authenticate(ann.device, &bob.secret).await;
    assert_eq!(wrong, Err(Code::Busy), "a wrong secret asks the store");
}

#[tokio::test]
async fn users_exist_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let ann = accounts.add_user(&"ann".parse().expect("a name")).await.expect("added");
    for _ in 0..2 {
        assert_eq!(accounts.exists(ann.device.uin).await, Some(true));
        assert_eq!(accounts.exists(Uin(9)).await, Some(false));
    }
    accounts.directory().close().await;
    assert_eq!(accounts.exists(Uin(9)).await, None, "it can't say now");
}

#[tokio::test]
async fn a_new_secret_ends_the_old_one_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let first = accounts.add_user(&"ann".parse().expect("a name")).await.expect("added");
    let check = async |secret: &Secret| accounts.authenticate(first.device, secret).await;
    assert_eq!(check(&first.secret).await, Ok(()));
    let second = accounts.rotate("ann", "1").await.expect("rotated");
    assert_eq!(second.device, first.device);
    for _ in 0..2 {
        assert_eq!(check(&first.secret).await, Err(Code::BadCredentials), "though remembered");
        assert_eq!(check(&second.secret).await, Ok(()));
    }
    accounts.revoke("ann", "1").await.expect("revoked");
    let error = accounts.rotate("ann", "1").await.expect_err("for ever");
    assert!(matches!(error, DirectoryError::Revoked(_)), "{error}");
}

#[tokio::test]
async fn names_change_and_numbers_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let ann = accounts.add_user(&"ann".parse().expect("a name")).await.expect("added");
    accounts.add_user(&"bob".parse().expect("a name")).await.expect("added");
    let to = |text: &str| text.parse().expect("a name");
    let renamed = accounts.rename_user("ann", &to("Anna")).await.expect("renamed");
    assert_eq!((renamed.uin, renamed.name.as_str()), (ann.device.uin.0, "Anna"));
    assert_eq!(accounts.authenticate(ann.device, &ann.secret).await, Ok(()));
    let error = accounts.rename_user("Anna", &to("bob")).await.expect_err("taken");
    assert!(matches!(error, DirectoryError::NameTaken(_)), "{error}");
    accounts.rename_user("Anna", &to("anna")).await.expect("another spelling is another name");

    let phone = "phone".parse().expect("a label");
    accounts.add_device(&to("anna"), None).await.expect("added");
    let device = accounts.rename_device("anna", "2", &phone).await.expect("renamed");
    assert_eq!((device.device, device.label.as_str()), (2, "phone"));
    let error = accounts.rename_device("anna", "1", &phone).await.expect_err("taken");
    assert!(matches!(error, DirectoryError::LabelTaken(_)), "{error}");
}

#[tokio::test]
async fn the_last_login_is_noted() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let name = "ann".parse().expect("a name");
    let first = accounts.add_user(&name).await.expect("added");
    let second = accounts.add_device(&name, None).await.expect("added");
    let last = async || {
        let devices = accounts.devices(None).await.expect("listed");
        [devices[0].last_login_ms, devices[1].last_login_ms]
    };
    let wrong = accounts.authenticate(first.device, &second.secret).await;
    assert_eq!((wrong, last().await), (Err(Code::BadCredentials), [0, 0]), "no login");
    let before = now().0;
    accounts.authenticate(second.device, &second.secret).await.expect("let in");
    let [never, then] = last().await;
    assert!(never == 0 && (before..=now().0).contains(&then), "{never} {then}");
    assert_eq!(last().await, [0, then], "noted once");
}

/// Stops a login at each of its steps, changes the secret meanwhile, and goes on with it.
#[tokio::test]
async fn what_was_read_before_a_change_is_neither_given_nor_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let mut old = accounts.add_user(&"ann".parse().expect("a name")).await.expect("added");
    let (mut stopped, mut steps) = (0, 1);
    for _ in 0..tern_random::soaked(40) {
        accounts.forget(|_| true);
        let (secret, device) = (old.secret.clone(), old.device);
        let mut login = std::pin::pin!(accounts.authenticate(device, &secret));
        let early = polled(login.as_mut(), steps).await;
        old = accounts.rotate("ann", "1").await.expect("rotated");
        if early.is_none() {
            assert_eq!(login.await, Err(Code::BadCredentials), "after {steps} steps");
            stopped += 1;
        }
        let again = accounts.authenticate(device, &secret).await;
        assert_eq!(again, Err(Code::BadCredentials), "after {steps} steps");
        steps = if early.is_some() { 1 } else { steps + 1 };
    }
    assert!(stopped > 0, "a login waits for the store");
    println!("TEST login-beside-rotation n={stopped} accepted=0");
}

/// What a future gives if it is polled so often.
async fn polled<F: Future>(mut future: std::pin::Pin<&mut F>, times: u32) -> Option<F::Output> {
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_user_has_a_bounded_number_of_devices() {
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = accounts(&folder).await;
    let name = "ann".parse().expect("a name");
    accounts.add_user(&name).await.expect("added");
    for _ in 2..=5 {
        accounts.add_device(&name, None).await.expect("added");
    }
    let error = accounts.add_device(&name, None).await.expect_err("five already");
    assert!(matches!(error, DirectoryError::TooManyDevices(5)), "{error}");
    accounts.revoke("ann", "3").await.expect("revoked");
    let sixth = accounts.add_device(&name, None).await.expect("one has gone");
    assert_eq!(sixth.device.device.0, 6, "a refused one used no number up");
}
