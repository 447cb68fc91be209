//! While SES is well, a message costs no write.

use bulkhead::sandbox::fault::{Fault, Kind};

use crate::scene::{Scene, post, recipients, relayed};

const CLIENTS: usize = 4;
const EACH: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn while_ses_is_well_nothing_is_written() {
    let mut scene = Scene::named("well").await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(scene.another().await);
    }
    let before = (scene.house.path.commits(), scene.house.platter.counts());
    let from = scene.from();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let letters: Vec<_> = (0..EACH).map(|_| scene.letter()).collect();
            let from = from.clone();
            tokio::spawn(async move {
                for (number, letter) in letters.iter().enumerate() {
                    let reply = post(&mut client, &from, &recipients(1 + number % 3), letter).await;
                    assert!(reply.starts_with("250 2.0.0 Ok "), "{reply}");
                }
                letters
            })
        })
        .collect();
    let mut letters = Vec::new();
    for task in tasks {
        letters.extend(task.await.unwrap());
    }
    assert_eq!((letters.len(), scene.lines("message_relayed").len()), (200, 200));
    for (number, letter) in letters.iter().enumerate() {
        scene.assert_copies(letter, 1 + number % EACH % 3, "transactional");
    }
    assert_eq!((scene.house.path.commits(), scene.house.platter.counts()), before, "two hundred, and not one write");
    assert_eq!((scene.house.files(), scene.held()), (0, 0));

    // Both would have told: one that is held is a file with its syncs, and rows.
    assert!(scene.house.faults.script([Fault::once(Kind::Quota)]));
    let letter = scene.letter();
    let id = scene.send_held(&letter).await;
    let held = (scene.house.path.commits(), scene.house.platter.counts());
    assert_eq!(held.0, before.0 + 1, "the row");
    assert_eq!(held.1, [before.1[0] + 1, before.1[1] + 1, before.1[2] + 2], "the octets, the name, two syncs");
    assert_eq!(scene.house.files(), 1);
    scene.dispatched(id).await;
    assert_eq!(scene.house.path.commits(), before.0 + 3, "the row, the lease, the end");
    let letter = scene.letter();
    relayed(&scene.send(&recipients(1), &letter).await);
    assert_eq!(scene.house.path.commits(), before.0 + 3, "and it is as before");
}
