"""What is a secret by its name or its look, what is not, and what is left of both."""

from __future__ import annotations

import json

import pytest

from hf_dynprune.common.secrets import hidden_in, is_secret_name, secret_values, without_secrets

SECRET = """
    token hub_token hf_token HF_TOKEN push_to_hub_token auth_token use_auth_token access_token apiToken access-token
    api_tokens api_key apikey apiKey WANDB_API_KEY wandb_key COMET_API_KEY OPENAI_API_KEY AWS_SECRET_ACCESS_KEY
    AWS_ACCESS_KEY_ID aws_session_token private_key ssh_key signing_key account_key secret client_secret secrets
    password db_password PASSWORD passwd DB_PWD passphrase credentials basic_auth Authorization bearer webhook_url
    cookie NEPTUNE_API_TOKEN CLEARML_API_SECRET_KEY MLFLOW_TRACKING_PASSWORD TRACKIO_KEY GITHUB_TOKEN storage_key
    hubToken
"""
PLAIN = """
    tokenizer tokenizer_name tokenizer_name_or_path max_tokens max_new_tokens num_tokens tokens token_type_ids
    pad_token eos_token bos_token mask_token image_token pad_token_id average_tokens_across_devices
    include_num_input_tokens_seen prune_key key keys label_key text_key image_key sort_key monkey keyboard secretary
    authors author prune_kwargs PWD output_dir run_name hub_model_id hub_strategy hub_private_repo seed data_seed
    patience path pattern compass passes ddp_bucket_cap_mb use_cache length_column_name accelerator_config min_tokens
    tokens_per_batch passkeys_dir
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_a_name_of_a_secret(name):
    assert is_secret_name(name)
    mark = f"<{name.replace('-', '_').upper()}>"
    assert without_secrets({name: "x"}) == {name: mark}
    assert without_secrets([f"--{name}", "x", "--seed", "1"]) == [f"--{name}", mark, "--seed", "1"]
    assert without_secrets([f"--{name}=x"]) == [f"--{name}={mark}"]
    assert without_secrets({"kwargs": json.dumps({"a": [{name: "x"}]})}) == {
        "kwargs": json.dumps({"a": [{name: mark}]})
    }
    assert hidden_in(f"run --{name} x-1 and {name}=x-1, {{'{name}': 'x-1'}}").count("x-1") == 0
    for empty in (None, "", False):
        assert without_secrets({name: empty}) == {name: empty}


@pytest.mark.parametrize("name", PLAIN.split())
def test_a_name_of_no_secret(name):
    assert not is_secret_name(name)
    for value in ({name: "x"}, [f"--{name}", "x"], [f"--{name}=x"], {"kwargs": json.dumps({name: "x"})}):
        assert without_secrets(value) == value
    assert hidden_in(f"run --{name} x-1 and {name}=x-1") == f"run --{name} x-1 and {name}=x-1"


LOOKS = [
    "hf_CANARY0123456789abcdefghijklmnop",
    "hf_abcdefgh1",
    "sk-0123456789abcdef",
    "sk-proj-abcDEF_0123456789",
    "sk-ant-api03-abcdef012345",
    "ghp_0123456789abcdefghij",
    "github_pat_11ABCDEFG0abcdefghijkl",
    "glpat-0123456789abcdefghij",
    "xoxb-123456789012-abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA0123456789abcdefghijklmnop",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
]
WHERE = ["{}", "a {} b", "'{}'", "https://host/x?y={}", "--run_name={}", '{{"name": "{}"}}', "name\n{}\n"]


@pytest.mark.parametrize("secret", LOOKS)
@pytest.mark.parametrize("where", WHERE)
def test_what_looks_like_a_secret_is_hidden_anywhere(secret, where):
    assert secret not in hidden_in(where.format(secret))
    assert "<hidden>" in hidden_in(where.format(secret))
    assert secret not in json.dumps(without_secrets({"run_name": [where.format(secret)]}))


@pytest.mark.parametrize(
    "address",
    [
        "https://user:pass-1@host/x",
        "https://pass-1@host",
        "s3://key:pass-1@bucket/x",
        "postgresql+psycopg://u:pass-1@h",
    ],
)
def test_an_address_loses_its_password_and_keeps_its_host(address):
    safe = hidden_in(f"read from {address}.")
    assert "pass-1" not in safe
    assert address.partition("@")[2] in safe
    assert hidden_in("https://host/a@b") == "https://host/a@b"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "hf_dynprune",
            "hf_transformers",
            "sk-learn",
            "scikit-learn",
            "the loss of each token: its mean",
            "a=1, b: 2",
        ),
        *("sha256 " + "0123456789abcdef" * 4, "[1, 2]", "{", '{"a": 1}', "", "user@host", "https://host/path?page=2"),
        *("InfoBatch(ratio=0.5, delta=0.875)", "checkpoint-500", "épée"),
    ],
)
def test_other_text_comes_back_as_it_was(text):
    assert hidden_in(text) == text
    assert without_secrets({"a": [text, (text, 1)], "b": {"c": text}}) == {"a": [text, (text, 1)], "b": {"c": text}}


def test_values_of_secrets_are_found_where_nothing_tells_them():
    words = ["--hub_token", "canary-1", "--a=b", "--x", '{"api_key": "canary-2", "b": "plain"}', "--password=canary-3"]
    values = secret_values(words, {"WANDB_API_KEY": "canary-long-4", "HOME": "/home/me", "MY_TOKEN": "abc"})
    assert values == ["canary-long-4", "canary-1", "canary-2", "canary-3"]
    assert hidden_in("canary-1 canary-2 canary-3 canary-long-4 a", values) == "<hidden> <hidden> <hidden> <hidden> a"


def test_a_secret_of_several_words_and_whole_objects_are_hidden():
    assert without_secrets(["--api_keys_secret", "a", "b", "--c", "d"])[1:] == ["<API_KEYS_SECRET>"] * 2 + ["--c", "d"]
    assert without_secrets({"credentials": {"user": "u"}, "n": 1}) == {"credentials": "<CREDENTIALS>", "n": 1}
    assert without_secrets({"kwargs": {"init": {"hub_token": "x", "rate": 0.5}}}) == {
        "kwargs": {"init": {"hub_token": "<HUB_TOKEN>", "rate": 0.5}}
    }


def test_it_is_the_same_the_second_time():
    once = without_secrets({"a": ["--hub_token", "x", '{"api_key": "k"}'], "b": "https://u:p@h", "c": LOOKS})
    assert without_secrets(once) == once
