"""Which words of an icon's name tell a thing from an arrow, an interface part, a brand or a person."""

from __future__ import annotations

import re

STYLES = """
alt bold broken core duo duotone eight fill filled five flat four kameleon light line linear neon nine one
outline pop regular remix rounded seven sharp six solid ten thin three two twotone
"""
ABSTRACT = """
abdominal abstract acceleration access account action actions ad add adobe ads advertising ai airpods alert
alien align alignment all allergen allergens amazon analytics and android antivirus app application approved
apps area arm arrow arrows astronaut at auto back bacteria badge bank baokemeng bar beard bill bitcoin
blackberry blind blood bluetooth blur body booking border boy brain brightness broadcast browser bubble bug
business businessman button call calls cancel care cash catch cell certificate chaplin character charging
charlie chart chat check checkmark chef chrome circle click close closed cloud code coding cog column
command comment commerce composition condition condom constellation content contrast control controls cook
cough creativity crop cross crypto currency cursor curve customer cyborg dashboard data database date deal
decrease delete department design dhammajak diagnosis diagram digital direction disability disable disabled
discord discount dislike divide division dna do doctor document dollar dot double down download drag e ear
ecommerce edit eeg email empty enable end engineering epic equal error ethereum euro exam exchange exclude
expand exposure eye eyes face facebook faces family famous fast favorite feed feedback feet female fever
figma file files filter finance find finder finger fingerprint fingers firefighter firefox fireman flash
flip flow flowchart flu fm focus folder foot formating formatting forward free from full gameboy gender
gesture get girl github gitlab give gmail google gopro gradient graph grid group hair half hand handle hands
handshake head healthcare heart hearts held help hexagon hide hierarchy high hinduism history hold holding
horizontal human hunger id idea imac in inbox incoming increase inequalities info information infrastructure
innovation insert instagram intellectual intersect invisible ios ipad iphone ipod iris job jobs king kiss
language layer layers layout left leg level like link linkedin lip lips list live loading local location
lock login logo logout loop lost love low lung lungs mac macbook mail maintenance male man management manual
map mario mark marketing mastercard maximize media medium meeting megaman member membership men menu merge
message messages microsoft minimize minus mode money more moustache mouth move multi multiple multiply
muslim mustache mute nasal navigation network new news next nfc nike nintendo no nose not notification
number nurse observation of off officer on online opacity open operator optimize organ organs orientation
other out outgoing oval pacman paginate pain paragraph password pathfinder pause pay payment paypal people
percent person pie pin place play playstation plus podcast point pokeball pokemon police politician politics
post pound poverty ppt pregnant premium presentation previous price process profile programming protection
put quality question rapper rate rating reality receive receptionist recognition record recording rectangle
refresh religion reload remove repeat reply report resize resting return review rewind right rotate rotation
route row rupee safari santa scan schedule script scroll search security select selection send seo server
service setting settings sex shape shapes share shift show shrink shuffle sign signal signs single skull
skype slider slow smart smiley snooze social soldier sort spark sparkle sparkles speciality speed sperm
split spotify square star stars start stock stomach stop story strategy stream style subscription subtract
support swap switch symbol symbols symptom sync synchronize take taking tap target task tasks team telegram
telemarketer test tetris text therapy threat throw tiktok time tinder to toggle tongue touch transfer
translate treatment trend trending trial triangle twitter typing ungroup union unlock up upload user users
uterus verified vertical view vip virtual virus visa visible voice volume vote warning warranty wayfinding
web website wechat weixin whatsapp wifi window wireless with woman women worker workflow xbox yen youtube
zodiac zone zoom
"""
STYLE_WORDS = frozenset(STYLES.split())
"""Words that say how an icon is drawn or that number it."""
ABSTRACT_WORDS = frozenset(ABSTRACT.split())
"""Words that show no thing one could photograph, or a brand, or a person."""
CONCRETE_CATEGORIES = re.compile(
    r"food|drink|nature|ecolog|sport|health|hardware|travel|clothes|baby|makeup|animal|music|entertain|build|energy"
    r"|industr|life|measure|transport|game|science|culture|shopping|shipping|photograph|device|phone|business ?products"
    r"|weather|office|hobb|construction|technology|audio|computers"
)
"""Subjects of the icon sets that are things; the others are arrows, charts, interface parts, brands and people."""


def words_of(name: str) -> list[str]:
    """Split a name into lower-case words and leave out numbers and words that name a drawing style."""
    words = re.findall(r"[a-z]+", name.lower().replace("\u2019", ""))
    return [word for word in words if word not in STYLE_WORDS]
