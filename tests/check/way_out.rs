//! What the two instances must have alike, and what smtpd must have at all.

use posttls::sandbox::Instance::{Encrypt, May};

use crate::clinic::Clinic;

pub fn alike_and_open(clinic: &mut Clinic) {
    let differ = [("may-way-out", "fail")];
    for (instance, setting) in [
        (Encrypt, "relayhost=[relay.test]"),
        (May, "relayhost=[relay.test]"),
        (Encrypt, "smtp_bind_address=127.0.0.1"),
        (Encrypt, "smtp_sasl_auth_enable=yes"),
        (Encrypt, "smtp_generic_maps=inline:{a@b.test=c@d.test}"),
        (
            Encrypt,
            "sender_dependent_relayhost_maps=inline:{@a.test=[b.test]}",
        ),
        (Encrypt, "smtp_destination_rate_delay=1s"),
        (May, "maximal_queue_lifetime=1h"),
    ] {
        let mut expected = differ.to_vec();
        if setting.starts_with("relayhost") && instance == Encrypt {
            // Nobody is there who could be asked for TLS.
            expected.push(("own-hops", "warn"));
        }
        clinic.broken(setting, |c| c.set(instance, setting), &expected);
    }
    clinic.broken(
        "a certificate that only one has, and that is not there",
        |c| c.set(Encrypt, "smtp_tls_cert_file=/nowhere"),
        &[("encrypt-handshake", "fail"), ("may-way-out", "fail")],
    );
    clinic.broken(
        "an address of its own for one service",
        |c| c.set_service(Encrypt, "smtp/unix/smtp_bind_address=127.0.0.1"),
        &differ,
    );
    // The sandbox has no service "relay".
    clinic.broken(
        "domains that are relayed by nobody",
        |c| c.set(Encrypt, "relay_domains=inside.test"),
        &[("may-way-out", "fail"), ("relay-domains", "fail")],
    );
    let inward = |c: &Clinic| {
        for instance in [Encrypt, May] {
            c.set(instance, "relay_domains=inside.test");
            c.set(instance, "relay_transport=smtp");
        }
    };
    clinic.broken(
        "domains that are relayed over TLS only",
        inward,
        &[("relay-domains", "warn")],
    );
    clinic.broken(
        "what is meant to differ",
        |c| {
            c.set(Encrypt, "smtp_helo_name=out.test");
            let own = "[\"myhostname\", \"transport_maps\", \"smtp_helo_name\"]";
            c.stage.configure("may", "own_settings", own);
        },
        &[],
    );
    // Nobody listens at the discard port.
    clinic.broken(
        "a content filter that must offer TLS",
        |c| c.set(Encrypt, "content_filter=smtp:[127.0.0.1]:9"),
        &[("own-hops", "warn")],
    );
    clinic.broken(
        "policies that can't be asked",
        |c| c.set(Encrypt, "smtp_tls_policy_maps=regexp:/nowhere"),
        &[("encrypt-policies", "warn"), ("tls-policies", "fail")],
    );
    // Who had these rules in smtpd_recipient_restrictions alone, and put ours in their place.
    let none = "smtpd_relay_restrictions=";
    let ours =
        "smtpd_recipient_restrictions=check_recipient_access inline:{{posttls.invalid=REJECT}}";
    clinic.broken(
        "no relay rules",
        |c| {
            c.set(Encrypt, none);
            c.set(Encrypt, ours);
        },
        &[("relay-rules", "fail")],
    );
    clinic.broken(
        "relay rules in a class",
        |c| {
            c.set(Encrypt, none);
            c.set(Encrypt, &format!("{ours} ours"));
            c.set(Encrypt, "smtpd_restriction_classes=ours");
            c.set(Encrypt, "ours=permit_mynetworks, reject_unauth_destination");
        },
        &[],
    );
}
