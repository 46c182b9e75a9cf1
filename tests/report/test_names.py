"""What options are called: by the first words of their YAML, each by a name of its own."""

from continual.config import config_folder
from continual.report.names import display_name


def test_options_are_called_as_their_yaml_says():
    assert display_name("agent", "l2_init") == "L2 Init"
    assert display_name("agent", "crelu") == "Concatenated ReLU"
    assert display_name("env", "permuted_mnist") == "Permuted MNIST"
    assert display_name("agent", "of_the_user") == "of_the_user"
    assert display_name("optimizer", "adam") == "adam"


def test_no_two_options_have_one_name():
    for group in ("agent", "env", "env/dataset"):
        options = [path.stem for path in (config_folder() / group).glob("*.yaml")]
        assert options
        assert len({display_name(group, option) for option in options}) == len(options)
