"""Names that the client invents for tunnels whose user did not choose one."""

from __future__ import annotations

from random import Random

__all__ = ["invent"]

ADJECTIVES = (
    "amber brave brisk calm clever cosy crisp curious eager early fancy fleet fresh gentle giant "
    "golden grand happy hasty honest humble jolly keen kind lively lucky mellow merry mighty misty "
    "modest nimble noble patient plain polite proud quick quiet rapid royal rustic shiny silent "
    "silver smart snowy solid spry steady stormy sunny swift tidy tiny vivid warm wild wise witty"
)
ANIMALS = (
    "ant badger bat bear beaver bee bison boar bonobo camel cat cod crane cricket crow deer dingo "
    "dolphin dove duck eagle eel elk falcon ferret finch fox frog gecko goat goose gull hare hawk "
    "heron horse ibex jackal kiwi koala lark lemur lion lizard llama lynx magpie marten mole moose "
    "moth mule newt orca otter owl panda parrot pigeon pike puma quail rabbit raven robin salmon "
    "seal shark sloth sparrow spider squid stork swan tapir tiger toad trout turtle viper vole "
    "walrus wasp weasel whale wolf wombat wren yak zebra"
)


def invent(random: Random) -> str:
    """``adjective-animal-number``, valid as a tunnel id."""
    number = random.randrange(1000, 10000)
    return f"{random.choice(ADJECTIVES.split())}-{random.choice(ANIMALS.split())}-{number}"
