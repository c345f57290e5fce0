"""Settings of the augmentation of training crops, validated once."""

import dataclasses

from sccunet.checks import checks_of, is_chance, is_number, is_numbers, is_range


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training crops; off by default, as in the paper.

    Attributes:
      gain_db: largest random change of each stem's level, up or down, in dB.
      channel_swap: swap left and right of each stem at random. Needs `downmix = False`.
      mix_tracks: probability that each stem of a crop comes from a different track and place.
      silent_share: largest share of a stem's mixed crops that are taken where the stem is silent,
        40 dB or more below its mean volume; 1 takes them as they come. Needs `mix_tracks`.
      speed: largest random change of each stem's speed, up or down, with pitch and formants: 0.1
        plays it 1 / 1.1 to 1.1 times as fast.
      tilt_db: largest random tilt of each stem's spectrum, up or down, in dB per octave.
      stem_dropout: probability of silence in place of a stem, for each stem in the order of
        `model.stems`; at least one stem of each crop sounds. If empty, no stem is dropped.
      equalizer_db: largest random change of each octave of each stem, up or down, in dB.
      balance_db: least and most level of the first stem against all others in mixed crops, in dB;
        levels change by 20 dB at most. If empty, stems keep theirs.
      duet: probability that the first stem of a mixed crop is the sum of two, each drawn by itself.
        Needs `mix_tracks`.
    """

    gain_db: float = 0.0
    channel_swap: bool = False
    mix_tracks: float = 0.0
    silent_share: float = 1.0
    speed: float = 0.0
    tilt_db: float = 0.0
    stem_dropout: tuple[float, ...] = ()
    equalizer_db: float = 0.0
    balance_db: tuple[float, ...] = ()
    duet: float = 0.0

    def __post_init__(self):
        check = checks_of(self, "augment.")
        check("gain_db", is_number(self.gain_db, 0), "a number of dB, 0 or more")
        check("channel_swap", isinstance(self.channel_swap, bool), "True or False")
        check("mix_tracks", is_chance(self.mix_tracks), "a probability between 0 and 1")
        check("silent_share", is_chance(self.silent_share), "a share between 0 and 1")
        needs = "1, or mix_tracks over 0: only mixed crops are chosen by their loudness"
        check("silent_share", self.silent_share == 1 or self.mix_tracks > 0, needs)
        check("speed", is_number(self.speed, 0, 1), "0 <= speed < 1")
        check("tilt_db", is_number(self.tilt_db, 0), "a number of dB per octave, 0 or more")
        check("equalizer_db", is_number(self.equalizer_db, 0), "a number of dB, 0 or more")
        fit = is_range(self.balance_db) and (self.mix_tracks > 0 or not self.balance_db)
        check("balance_db", fit, "nothing, or two rising numbers of dB with mix_tracks over 0")
        object.__setattr__(self, "balance_db", tuple(float(db) for db in self.balance_db))
        fit = is_chance(self.duet) and (self.mix_tracks > 0 or not self.duet)
        check("duet", fit, "a probability between 0 and 1; over 0 with mix_tracks over 0")
        chances = self.stem_dropout
        fit = is_numbers(chances) and all(is_chance(chance) for chance in chances)
        check("stem_dropout", fit, "a list of probabilities between 0 and 1")
        object.__setattr__(self, "stem_dropout", tuple(float(chance) for chance in chances))
