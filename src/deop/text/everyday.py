"""The built-in vocabulary "everyday": what ordinary photos show, chosen for deop; things and stuff by subject."""

THINGS = """
    person|man|woman, child|boy|girl, baby

    dog|puppy, cat|kitten, bird, owl, duck, goose, swan, chicken|rooster, penguin, horse, cow, sheep, goat, pig, donkey
    deer, elephant, bear, zebra, giraffe, lion, tiger, monkey, rabbit, squirrel, fox, mouse|rat, turtle, frog, snake
    lizard, fish, crab, butterfly, bee, spider

    car, taxi, van, truck|lorry, bus, tram, train, bicycle|bike, motorcycle, scooter, wheelchair, cart, tractor
    ambulance, fire engine, boat, ship, sailboat, canoe, airplane|plane, helicopter, hot air balloon, wheel

    traffic light, traffic sign|street sign, stop sign, fire hydrant, parking meter, street lamp, mailbox
    trash can|garbage can, bench, billboard, statue, fountain, flag, umbrella, barrel, ladder, tent

    table, desk, chair, armchair, stool, sofa|couch, bed, wardrobe|closet, cabinet|cupboard, bookcase, lamp, candle
    mirror, picture frame, painting, poster, clock, vase, pillow|cushion, potted plant, fireplace, radiator, fan, basket
    box, bathtub, shower, toilet, sink, faucet|tap, toilet paper, soap, toothbrush, hair dryer, washing machine, bucket

    refrigerator|fridge, oven, stove, microwave, toaster, kettle, coffee maker, pot, frying pan, plate, bowl, cup|mug
    glass, wine glass, bottle, jar, pitcher|jug, teapot, fork, knife, spoon, cutting board, tray, napkin

    television|tv, laptop, computer, monitor, keyboard, computer mouse, printer, cell phone|smartphone, telephone
    remote control, camera, headphones, loudspeaker|speaker, microphone, radio, watch, light bulb

    book, magazine, newspaper, envelope, notebook, pen|pencil, scissors, bag, backpack, handbag, suitcase, wallet, key
    coin, globe, map

    hat|cap, helmet, glasses, sunglasses, shirt|blouse, sweater, jacket|coat, dress, skirt, trousers|pants, jeans
    shorts, tie, scarf, glove, belt, sock, shoe, boot, necklace, mask

    ball, soccer ball, baseball bat, baseball glove, tennis racket, frisbee, kite, balloon, skateboard, surfboard, skis
    snowboard, doll, teddy bear, guitar, piano, violin, drum, trumpet

    hammer, screwdriver, saw, drill, axe, shovel, broom, lawn mower, rope, chain

    apple, banana, orange, lemon, pear, grapes, strawberry, pineapple, tomato, potato, carrot, onion, cucumber
    bell pepper, broccoli, cauliflower, pumpkin, mushroom, corn, egg, sandwich, hamburger, hot dog, pizza, cake, pie
    donut|doughnut, cookie, ice cream, sausage
"""
"""Countable things; ``|`` joins synonyms."""

STUFF = """
    sky, clouds, sun, moon, fog, smoke, fire
    tree, palm tree, branch, leaves, bush|shrub, hedge, grass|lawn, flower, plant, straw|hay, crop field, forest
    mountain, hill, cliff, rock|stone, sand|beach, soil|dirt|mud, gravel, snow, ice
    water, sea|ocean, river, lake, waterfall, swimming pool

    road|street, sidewalk|pavement, path, parking lot, railway|railroad, bridge, tunnel, runway, platform
    building, house, skyscraper, tower, church, barn, roof, chimney, balcony, column, arch, wall, brick wall, stone wall
    tile wall, window, door, gate, fence, railing, stairs, pole

    floor, wooden floor, tile floor, carpet|rug, ceiling, curtain, window blind, shelf, counter, blackboard, blanket
    towel, tablecloth, cloth|fabric, clothes, net, paper, cardboard, wood, metal, plastic, cable|wire

    bread, rice, pasta|noodles, soup, salad, meat, cheese, chocolate, fruit, vegetables, food, coffee, beer
    hair, text|writing, sports field, stage, machine, crowd
"""
"""Stuff, which is not counted; ``|`` joins synonyms."""
